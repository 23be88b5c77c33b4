/* about.h - describes the build: version, I/O engines, libraries. */
#pragma once

/** Prints name, version and the engine that `auto` selects on stderr, as twemproxy does. */
void mr_about_print_name(void);

/** Prints on stderr which engines are available here, the compiler and the library versions. */
void mr_about_print_build(void);
