/* The disk of the power cuts, for the programs here: helpers are linked per directory. */
#include "../crash/disk.c" /* NOLINT(bugprone-suspicious-include) */
