/* SPDX-License-Identifier: Apache-2.0 */
/* Messages by eventfd of the KVM engine (cpu/kvm/routes.c), of a kernel that refuses everything: what is there without /dev/kvm. */
#include "cpu/kvm/kvm_priv.h"
#include "tests/tap.h"

int main(void)
{
	static struct kvm_engine e = { .fd = -1, .vm_fd = -1 };

	kvm_routes_init(&e);
	ok(!kvm_set_irqfd(&e.base, 5, true, 0xfee00000, 0x41), "no routes: no message by eventfd");
	is_u64(e.irqfd_count, 0, "none is counted");
	ok(!kvm_set_irqfd(&e.base, 5, true, 0xfee00000, 0x42) && !e.irqfd_count, "nor the second time");
	ok(!kvm_set_irqfd(&e.base, 5, false, 0, 0) && !e.irqfd_count, "there is nothing to end");
	for (unsigned n = 0; n < ARRAY_SIZE(e.routes); n++)
		if (e.routes[n].type)
			return ok(false, "route %u is left", n), done_testing();
	ok(true, "no route is left");
	kvm_set_pin(&e.base, 3, false, 0xfee00000, 0x8041);
	is_u64(e.routes[3].type, KVM_IRQ_ROUTING_MSI, "a level-triggered input has a route, for the next time");
	kvm_set_pin(&e.base, 3, true, 0xfee00000, 0x8041);
	is_u64(e.routes[3].type, KVM_IRQ_ROUTING_MSI, "also masked, for the EOI that is to come");
	kvm_set_pin(&e.base, 3, false, 0xfee00000, 0x41);
	is_u64(e.routes[3].type, 0, "an edge-triggered one has none");
	return done_testing();
}
