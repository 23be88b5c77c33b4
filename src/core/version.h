/* version.h - the version, set by the build. */
#pragma once

#ifndef MR_VERSION
#define MR_VERSION "unknown"
#endif
