/* SPDX-License-Identifier: MIT
 *
 * pin.h - keeps the library in memory.
 *
 * lua_close unloads the modules that it has loaded. Whoever gives the process something of ours that outlives a Lua
 * state - a thread, a signal handler - pins the library first.
 */
#ifndef LCTX_PIN_H
#define LCTX_PIN_H

#pragma GCC visibility push(hidden)

void lctx__pin_library(void);

#pragma GCC visibility pop
#endif
