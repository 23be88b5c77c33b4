/* about.h - what this build is made of: version, I/O engines, libraries. */
#pragma once

/** Prints the name, the version and the engine that `auto` picks on stderr, as twemproxy does. */
void mr_about_print_name(void);

/** Prints on stderr which engines can run here, the compiler and the library versions. */
void mr_about_print_build(void);
