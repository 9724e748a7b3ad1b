/* SPDX-License-Identifier: Apache-2.0 */
/* CPU features that are asked for: what the guest has, what the host lacks, what the engine keeps back, what nobody knows. */
#include "cpu/features.h"

#include <cpuid.h>
#include <string.h>

#include "tests/tap.h"
#include "tests/unit/bt_guest.h"

static struct bt_guest g;

static void granted(const char *names)
{
	struct error *err = cpu_features_require(g.engine, names);

	ok(!err, "'%s'%s%s", names, err ? ": " : "", err ? error_message(err) : "");
	error_free(err);
}

static void refused(const char *names, const char *text)
{
	struct error *err = cpu_features_require(g.engine, names);

	ok(err && strstr(error_message(err), text), "'%s': %s", names, err ? error_message(err) : "granted");
	error_free(err);
}

int main(void)
{
	bool host_has_vmx;
	uint32_t a, b, c, d;

	guest_open(&g, 1);
	granted("sse2");
	granted("lm,nx,fsgsbase,smap");
	granted(",,mmx,");
	granted("");
	refused("avx9", "not known");
	refused("sse2,avx9,mmx", "'avx9' is not known");
	refused("ss", "not known");
	refused("sse22", "not known");
	host_has_vmx = __get_cpuid(1, &a, &b, &c, &d) && (c & 1 << 5);
	refused("sse2,vmx", host_has_vmx ? "the engine bt does not pass it on" : "this host's processor does not have it");
	ok(engine_cpuid(g.engine, 1, 0).edx & 1u << 26, "CPUID as the guest sees it has SSE2");
	guest_close(&g);
	return done_testing();
}
