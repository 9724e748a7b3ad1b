// SPDX-License-Identifier: Apache-2.0
/* The gdb stub, packet by packet, over a fake machine. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "tests/tap.h"
#include "tests/unit/fake_gdb_target.h"
#include "vm/gdb_regs.h"

static struct fake_target t;
static struct gdb *g;
static char out[65536];
static size_t out_used;

static void output(void *opaque, const void *data, size_t len)
{
	if (len < sizeof(out) - out_used) {
		memcpy(out + out_used, data, len);
		out_used += len;
		out[out_used] = 0;
	}
}

/* Sends a packet and returns the reply's text: after its '+', without '$' and checksum. */
static const char *ask(const char *packet)
{
	static char text[65536];
	char frame[8192];
	uint8_t sum = 0;
	char *start, *end;

	for (const char *p = packet; *p; p++)
		sum += (uint8_t)*p;
	snprintf(frame, sizeof(frame), "$%s#%02x", packet, sum);
	out_used = 0;
	out[0] = 0;
	gdb_input(g, (uint8_t *)frame, strlen(frame));
	start = strchr(out, '$');
	if (!start)
		return out;
	snprintf(text, sizeof(text), "%s", start + 1);
	end = strrchr(text, '#');
	if (end)
		*end = 0;
	return text;
}

static void test_registers(void)
{
	const char *r;

	t.regs[0].gpr[X86_RBX] = 0x1122334455667788;
	t.regs[0].rip = 0xffffffff81000000;
	t.regs[1].rip = 0x1234;
	t.sregs[0].cr3 = 0x5000;
	t.sregs[0].seg[X86_GS].base = 0xffff888000000000;
	r = ask("g");
	is_u64(strlen(r), 2 * (16 * 8 + 8 + 4 + 6 * 4 + 8 * 10 + 8 * 4 + 16 * 16 + 4 + 2 * 8 + 6 * 8), "g has all registers");
	ok(!strncmp(r + 16, "8877665544332211", 16), "rbx is the second, little-endian");
	is_str(ask("p10"), "00000081ffffffff", "p: rip");
	is_str(ask("P1=0100000000000000"), "OK", "P: rbx");
	is_u64(t.regs[0].gpr[X86_RBX], 1, "is written");
	is_str(ask("p3a"), "0000000080" "88ffff", "gs_base");
	is_str(ask("pff"), "E01", "no such register");
	is_str(ask("P1=01"), "E01", "a short value");
	is_str(ask("G00"), "E01", "a short G");
	is_str(ask("p20"), "7f030000", "fctrl of an initial FPU");
	is_str(ask("p22"), "ffff0000", "ftag: all empty");
	is_str(ask("P28=000102030405060708090a0b0c0d0e0f"), "OK", "xmm0");
	is_u64(t.xstate[0].area[160 + 15], 15, "is written");
	is_u64(load_le(t.xstate[0].area + 512, 8) & 3, 3, "and marked as present");
	is_str(ask("Hg2"), "OK", "thread 2");
	is_str(ask("p10"), "3412000000000000", "has its own rip");
	is_str(ask("Hg3"), "E01", "there is no thread 3");
	is_str(ask("Hg1"), "OK", "back to thread 1");
}

/* Writes the 64-bit register @name. */
static const char *write_reg(const char *name, uint64_t value)
{
	static const char *const names[] = { "cr0", "cr2", "cr3", "cr4", "cr8", "efer" };
	char packet[40];
	unsigned n = 0;

	while (strcmp(names[n], name))
		n++;
	snprintf(packet, sizeof(packet), "P%x=%016" PRIx64, 0x3b + n, __builtin_bswap64(value));
	return ask(packet);
}

static void test_control_registers(void)
{
	const uint64_t pe = X86_CR0_PE | X86_CR0_ET, paged = pe | X86_CR0_PG, pae = X86_CR4_PAE, pcide = X86_CR4_PAE | X86_CR4_PCIDE;
	const uint64_t lme = X86_EFER_LME, lma = X86_EFER_LME | X86_EFER_LMA;
	const struct {
		uint64_t cr0, cr3, cr4, efer;
		const char *reg;
		uint64_t value;
		const char *reply, *what;
		bool in_64;
	} writes[] = {
		{ 0x10, 0, 0, 0, "cr0", pe, "OK", "protected mode", false },
		{ pe, 0, 0, 0, "cr0", paged, "OK", "paging", false },
		{ 0x10, 0, 0, 0, "cr0", X86_CR0_PG, "E22", "paging without protection", false },
		{ pe, 0, 0, 0, "cr0", pe | X86_CR0_NW, "E22", "not write-through without no caching", false },
		{ pe, 0, 0, 0, "cr0", pe | 1ull << 32, "E22", "a reserved bit above 31", false },
		{ paged, 0, pae, lma, "cr0", pe, "E22", "64-bit code without paging", true },
		{ paged, 0, pae, lma, "cr0", pe, "OK", "out of long mode, from compatibility mode", false },
		{ paged, 0, pcide, lma, "cr0", pe, "E22", "no paging with PCIDs", false },
		{ pe, 0, 0, lme, "cr0", paged, "E22", "long mode without PAE", false },
		{ pe, 0, pae, lme, "cr0", paged, "OK", "long mode", false },
		{ pe, 0, 0, 0, "cr3", 0x5018, "OK", "CR3", false },
		{ paged, 0, pae, lma, "cr3", 1ull << 52, "E22", "a CR3 beyond all memory", false },
		{ pe, 0, 0, 0, "cr4", X86_CR4_PSE, "OK", "large pages", false },
		{ pe, 0, 0, 0, "cr4", 1ull << 31, "E22", "a reserved bit of CR4", false },
		{ pe, 0, 1ull << 22, 0, "cr4", 1ull << 22 | X86_CR4_PSE, "OK", "beside one that the guest has set", false },
		{ paged, 0, pae, lma, "cr4", 0, "E22", "no PAE in long mode", false },
		{ paged, 0, pae, 0, "cr4", pcide, "E22", "PCIDs outside of long mode", false },
		{ paged, 0x5001, pae, lma, "cr4", pcide, "E22", "PCIDs with one in CR3", false },
		{ paged, 0x5000, pae, lma, "cr4", pcide, "OK", "PCIDs", false },
		{ pe, 0, 0, 0, "cr8", 15, "OK", "a task priority", false },
		{ pe, 0, 0, 0, "cr8", 16, "E22", "one above 15", false },
		{ pe, 0, 0, 0, "efer", X86_EFER_NXE | X86_EFER_SCE | lme, "OK", "EFER", false },
		{ pe, 0, 0, 0, "efer", 1u << 1, "E22", "a reserved bit of EFER", false },
		{ paged, 0, pae, 0, "efer", lme, "E22", "long mode while paging is on", false },
		{ paged, 0, pae, lma, "efer", 0, "E22", "no long mode while paging is on", false },
	};
	struct x86_sregs old = t.sregs[0];

	for (unsigned i = 0; i < ARRAY_SIZE(writes); i++) {
		struct x86_sregs was = { .cr0 = writes[i].cr0, .cr3 = writes[i].cr3, .cr4 = writes[i].cr4, .efer = writes[i].efer };

		was.seg[X86_CS].attr = writes[i].in_64 ? X86_ATTR_P | X86_ATTR_L : X86_ATTR_P;
		t.sregs[0] = was;
		is_str(write_reg(writes[i].reg, writes[i].value), writes[i].reply, "%s: %s", writes[i].reg, writes[i].what);
		ok((memcmp(&t.sregs[0], &was, sizeof(was)) != 0) == (writes[i].reply[0] == 'O'), "and is %s",
		   writes[i].reply[0] == 'O' ? "written" : "left alone");
	}
	t.sregs[0] = (struct x86_sregs){ .cr0 = pe, .cr4 = pae, .efer = lme };
	ok(!strcmp(write_reg("cr0", paged | 1u << 7), "OK") && t.sregs[0].cr0 == paged && t.sregs[0].efer == lma,
	   "reserved bits of CR0 are not kept, and LMA is the processor's");
	ok(!strcmp(write_reg("efer", lme), "OK") && t.sregs[0].efer == lma, "whatever is written there");
	t.sregs[0] = (struct x86_sregs){ .cr0 = X86_CR0_PG, .cr4 = 1ull << 40 };
	is_str(ask("P1=0200000000000000"), "OK", "what a loader has made of them does not keep others from being written");
	t.sregs[0] = old;
}

static void test_memory(void)
{
	memcpy(t.ram + 0x1000, "hello", 5);
	is_str(ask("m1000,5"), "68656c6c6f", "m");
	is_str(ask("M1000,2:4142"), "OK", "M");
	ok(!memcmp(t.ram + 0x1000, "ABllo", 5), "is written");
	is_str(ask("X1000,3:a}\x03z"), "OK", "X with an escaped #");
	ok(!memcmp(t.ram + 0x1000, "a#zlo", 5), "is written");
	is_str(ask("X1000,4:abc"), "E01", "X with fewer bytes than announced");
	is_str(ask("m9000,4"), "E14", "no such address");
	is_str(ask("m7ffe,4"), "0000", "what can be reached at a page's end");
	is_str(ask("m1000"), "E01", "m without a length");
	is_str(ask("m11111111111111111,4"), "E01", "an address of 17 digits");
	is_str(ask("M7ffe,4:01020304"), "E14", "M across the end");
	ok(strlen(ask("m0,ffffffff")) <= GDB_PACKET_MAX, "an endless m is cut");
	is_str(ask("Mffffffffffffffff,10:00"), "E01", "a lying M");
}

static void test_running(void)
{
	struct vcpu_exit exit = { .reason = VCPU_EXIT_DEBUG };
	unsigned go_ons = t.go_ons;

	is_str(ask("Z0,1234,1"), "OK", "Z0");
	is_str(ask("Z2,2000,4"), "OK", "Z2");
	is_str(ask("Z2,2000,3"), "E16", "a watchpoint of 3 bytes");
	is_str(ask("Z9,2000,4"), "", "no such kind");
	is_str(ask("vCont?"), "vCont;c;C;s;S", "vCont?");
	is_str(ask("vCont;x"), "E01", "a bad vCont");
	is_str(ask("vCont;s:9"), "E01", "a vCont for no thread");
	ask("vCont;s:2;c");
	is_u64(t.go_ons, go_ons + 1, "vCont lets it run");
	ok(t.debug[1].single_step && !t.debug[0].single_step, "with vCPU 1 stepping");
	ok(t.debug[0].count == 2 && t.debug[0].point[0].kind == VCPU_BREAK_EXEC && t.debug[0].point[0].gva == 0x1234 &&
		   t.debug[0].point[1].kind == VCPU_WATCH_WRITE && t.debug[0].point[1].length == 4,
	   "and its breakpoints set");
	is_str(ask("g"), "+", "nothing is answered while it runs");
	exit.debug_address = 0x1234;
	gdb_hit(g, 1, &exit);
	out_used = 0;
	fake_settle(&t, g);
	ok(!strncmp(out, "$T05swbreak:;thread:2;#", 23), "a breakpoint is reported (%s)", out);
	ask("c");
	exit.debug_watch = true;
	exit.debug_address = 0x2002;
	gdb_hit(g, 0, &exit);
	out_used = 0;
	fake_settle(&t, g);
	ok(!strncmp(out, "$T05watch:2002;thread:1;#", 25), "a watchpoint is reported (%s)", out);
	is_str(ask("z0,1234,1"), "OK", "z0");
	ask("c");
	is_u64(t.debug[0].count, 1, "one breakpoint less");
	out_used = 0;
	gdb_input(g, (const uint8_t *)"\x03", 1);
	fake_settle(&t, g);
	ok(!strncmp(out, "$T02thread:1;#", 14), "Ctrl-C stops it (%s)", out);
}

static void test_queries(void)
{
	char xml[32768] = "", packet[80];
	const char *part;

	ok(strstr(ask("qSupported:swbreak+;xmlRegisters=i386"), "qXfer:features:read+"), "qSupported");
	is_str(ask("qfThreadInfo"), "m1,2", "threads");
	is_str(ask("qsThreadInfo"), "l", "no more");
	is_str(ask("T2"), "OK", "thread 2 is alive");
	is_str(ask("T7"), "E01", "thread 7 is not");
	is_str(ask("qThreadExtraInfo,2"), "764350552031202868616c74656429", "what it does");
	do {
		snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%zx,3fb", strlen(xml));
		part = ask(packet);
		snprintf(xml + strlen(xml), sizeof(xml) - strlen(xml), "%s", part + 1);
	} while (*part == 'm');
	ok(*part == 'l' && strstr(xml, "\"rip\"") && strstr(xml, "</target>"), "the target description comes in pieces");
	is_str(ask("qXfer:features:read:../etc:0,10"), "E00", "no other file");
	is_str(ask("qXfer:features:read:target.xml:ffffff,10"), "E01", "nothing behind its end");
	is_str(ask("vMustReplyEmpty"), "", "an unknown packet");
}

int main(void)
{
	struct gdb_target target = fake_gdb_target(&t);
	char big[GDB_PACKET_MAX + 100];

	g = gdb_create_detached(&target, output, NULL);
	ok(t.stops == 1, "a debugger stops the machine");
	fake_settle(&t, g);
	is_str(ask("?"), "T05thread:1;", "and is told so");
	test_queries();
	test_registers();
	test_control_registers();
	test_memory();
	test_running();

	out_used = 0;
	gdb_input(g, (const uint8_t *)"$g#00", 5);
	is_str(out_used ? "-" : "", out_used && out[0] == '-' ? "-" : "x", "a wrong checksum is refused");
	memset(big, 'a', sizeof(big));
	big[0] = '$';
	gdb_input(g, (uint8_t *)big, sizeof(big));
	is_str(ask("qC"), "QC1", "a packet that is too long does no harm");
	is_str(ask("QStartNoAckMode"), "OK", "no acknowledgements");
	ask("k");
	is_u64(t.kills, 1, "kill");
	is_str(ask("D"), "OK", "detach");
	ok(!gdb_attached(g) && t.debug[0].count == 0, "leaves nothing behind");
	gdb_destroy(g);
	return done_testing();
}
