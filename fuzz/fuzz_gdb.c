// SPDX-License-Identifier: Apache-2.0
/*
 * The gdb stub over a fake machine. The input is packets without frame, separated by zero bytes; each is sent
 * with its checksum. A packet that begins with '!' goes to the wire as it is; '@' lets a breakpoint be met.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/fake_gdb_target.h"

static void drop(void *opaque, const void *data, size_t len)
{
}

static void packet(struct gdb *g, const uint8_t *data, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t sum = 0, tail[3] = { '#' };

	for (size_t i = 0; i < n; i++)
		sum += data[i];
	tail[1] = digits[sum >> 4];
	tail[2] = digits[sum & 15];
	gdb_input(g, (const uint8_t *)"$", 1);
	gdb_input(g, data, n);
	gdb_input(g, tail, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fake_target t;
	struct gdb_target target = fake_gdb_target(&t);
	struct gdb *g = gdb_create_detached(&target, drop, NULL);

	memset(&t, 0, sizeof(t));
	t.stop_wanted = true;
	fake_settle(&t, g);
	while (size) {
		const uint8_t *end = memchr(data, 0, size);
		size_t n = end ? (size_t)(end - data) : size;

		if (n && data[0] == '!') {
			gdb_input(g, data + 1, n - 1);
		} else if (n && data[0] == '@') {
			struct vcpu_exit exit = { .reason = VCPU_EXIT_DEBUG, .debug_watch = n & 1, .debug_address = n };

			gdb_hit(g, n % 2, &exit);
		} else {
			packet(g, data, n);
		}
		fake_settle(&t, g);
		n += end ? 1 : 0;
		data += n;
		size -= n;
	}
	gdb_destroy(g);
	return 0;
}
