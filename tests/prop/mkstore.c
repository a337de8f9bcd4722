/* The tests' own writer of stores, for the programs here: helpers are linked per directory. */
#include "../unit/mkstore.c" /* NOLINT(bugprone-suspicious-include) */
