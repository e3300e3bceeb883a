/* setting: what the environment says to moec. */
#ifndef MOEC_SETTING_H
#define MOEC_SETTING_H

#include <stdlib.h>

/* The variable's text; NULL where it is unset or empty: VAR= on a command line takes a wish back. */
static inline const char *moec_setting(const char *name) {
    const char *text = getenv(name);
    return text && *text ? text : NULL;
}

#endif
