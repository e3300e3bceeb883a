/* json_text: bytes as JSON strings. Paths and model output are bytes; JSON is UTF-8. */
#ifndef MOEC_JSON_TEXT_H
#define MOEC_JSON_TEXT_H

#include <jansson.h>
#include <stddef.h>

/* A JSON string (new reference): the text as it is; where it is not UTF-8, as moec_json_ascii has it. */
json_t *moec_json_text(const char *text);
/* Bytes outside printable ASCII and newline become '?'. null when memory is short. */
json_t *moec_json_ascii(const char *bytes, size_t count);

#endif
