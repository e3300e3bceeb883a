/* The version, in one place: moec.h repeats it as MOEC_VERSION_STRING and a test compares them. */
#define MOEC_VERSION "0.1.0"
