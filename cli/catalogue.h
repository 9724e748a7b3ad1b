/* SPDX-License-Identifier: Apache-2.0 */
/* Guests of the catalogue, as guest/README.md describes them: read here, made by their scripts. */
#ifndef CLI_CATALOGUE_H
#define CLI_CATALOGUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cli/options.h"

/* All strings are owned; file names are complete paths. */
struct guest {
	char *folder, *name, *version, *description, *kernel, *initrd, *append, *created;
	char *ssh_user, *ssh_key; /* who may log in by which key; NULL: nobody */
	uint64_t recipe; /* by which it was made; 0: before that was kept */
	unsigned cpus;
	uint64_t memory_bytes;
	unsigned disk_count;
	struct {
		char *path;
		enum block_format format;
	} disks[RUN_DISKS_MAX];
};

/* "debian:12" to "debian-12"; false when it has not that form. */
bool guest_folder_name(const char *image, char *out, size_t size);

/* The folder in which guests are kept. */
struct error *guest_cache(char *path, size_t size) MUST_CHECK;

/* Reads the manifest in @folder. */
struct error *guest_read(const char *folder, struct guest *out) MUST_CHECK;
/* The guest @image ("debian:12"): says how to make it when it is not there. */
struct error *guest_find(const char *image, struct guest *out) MUST_CHECK;
/* Has the catalogue a newer recipe for it? False if it has none at all. */
bool guest_is_outdated(const struct guest *g);
void guest_finish(struct guest *g);

#endif
