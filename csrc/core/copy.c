/* SPDX-License-Identifier: MIT
 *
 * Every copy of the core carries an ELF note. Notes are found in whatever is loaded, also in what exports nothing.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "copy.h"

#include <stddef.h>

#if defined(__linux__) && defined(__ELF__)
#include <link.h>
#include <stdbool.h>
#include <string.h>

#include "public.h"

enum { NOTE_TYPE = 1 };

typedef struct note {
    ElfW(Nhdr) header;
    char name[12]; /* padded to a multiple of four */
    char version[8];
} note;

/* Sections of notes have no room for what a sanitizer puts around variables. */
#ifdef __clang__
#define BARE __attribute__((no_sanitize("address")))
#else
#define BARE
#endif

__attribute__((section(".note.lcontext"), aligned(4), used)) BARE static const note own_note = {
    {sizeof "lcontext", sizeof(((note *)0)->version), NOTE_TYPE}, "lcontext", LCTX_VERSION};

static size_t padded(size_t size)
{
    return (size + 3) & ~(size_t)3;
}

/* Whether there is a note of ours, but not this copy's, among those of a segment. */
static bool has_other_note(const char *at, size_t left)
{
    while (left >= sizeof(ElfW(Nhdr))) {
        const ElfW(Nhdr) *header = (const ElfW(Nhdr) *)at;
        size_t size = sizeof *header + padded(header->n_namesz) + padded(header->n_descsz);
        if (size > left)
            return false;
        if (header->n_type == NOTE_TYPE && header->n_namesz == sizeof "lcontext" &&
            memcmp(header + 1, "lcontext", sizeof "lcontext") == 0 && at != (const char *)&own_note)
            return true;
        at += size;
        left -= size;
    }
    return false;
}

static int look_at_object(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type != PT_NOTE)
            continue;
        if (has_other_note((const char *)info->dlpi_addr + segment->p_vaddr, segment->p_memsz)) {
            *(const char **)found = info->dlpi_name;
            return 1;
        }
    }
    return 0;
}

const char *lctx__other_copy(void)
{
    const char *found = NULL;
    dl_iterate_phdr(look_at_object, &found);
    return found;
}

#else

const char *lctx__other_copy(void)
{
    return NULL;
}

#endif
