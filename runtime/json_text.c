/* json_text: bytes as JSON strings (json_text.h). */
#include "json_text.h"

#include <stdlib.h>
#include <string.h>

json_t *moec_json_text(const char *text) {
    json_t *value = json_string(text);
    return value ? value : moec_json_ascii(text, strlen(text));
}

json_t *moec_json_ascii(const char *bytes, size_t count) {
    char *text = malloc(count + 1);
    if (!text) return json_null();
    for (size_t i = 0; i < count; i++) {
        unsigned char c = (unsigned char)bytes[i];
        text[i] = c == '\n' || (c >= 32 && c < 127) ? (char)c : '?';
    }
    text[count] = 0;
    json_t *value = json_string(text);
    free(text);
    return value;
}
