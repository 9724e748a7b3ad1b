# SPDX-License-Identifier: Apache-2.0
#
# maru: one Makefile for the whole house. `make help` lists the targets.
#
# Each MODE has a tree of its own, build/MODE/, and all trees are known in every invocation: `make test`
# builds what it needs of each. Sources are found by room; a room is a folder. V=1 shows the commands.

MODES := release debug asan tsan fuzz
MODE ?= release
B := build/$(MODE)
PREFIX ?= /usr/local
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG ?= clang
Q := $(if $(V),,@)
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
$(if $(filter $(MODE),$(MODES)),,$(error MODE=$(MODE) is unknown; it is one of: $(MODES)))

# ---- What is built -----------------------------------------------------------------------------

PROGRAMS := maru maru-vm maru-nat maru-share
MAINS := cli/main vm/main net/nat/main share/main
ROOMS_maru-vm := base mem cpu cpu/bt cpu/kvm dev dev/pci dev/virtio block net ui machine vm
ROOMS_maru := base block cli
ROOMS_maru-nat := base net/nat
ROOMS_maru-share := base share
PKGS_maru-vm := jansson zlib libzstd
PKGS_maru := jansson zlib libzstd
PKGS_maru-nat := slirp glib-2.0
ROOMS := $(sort $(foreach p,$(PROGRAMS),$(ROOMS_$(p))))
PKGS := $(sort $(foreach p,$(PROGRAMS),$(PKGS_$(p))))

# The objects of rooms $(1), without folder build/MODE/.
objects = $(sort $(foreach r,$(1),$(patsubst %.c,%.o,$(wildcard $(r)/*.c)) $(patsubst %.S,%.o,$(wildcard $(r)/*.S))))
ROOM_OBJS := $(filter-out $(MAINS:=.o),$(call objects,$(ROOMS)))
UNIT := $(patsubst %.c,%,$(wildcard tests/unit/test_*.c))
FUZZ := $(patsubst %.c,%,$(wildcard fuzz/fuzz_*.c))

# ---- How -----------------------------------------------------------------------------------------

CC_fuzz = $(CLANG)
HARDEN := -D_FORTIFY_SOURCE=2 -fstack-protector-strong
CFLAGS_release := -O2 -g $(HARDEN)
CFLAGS_debug := -O0 -g3
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS_asan := -O1 -g -fno-omit-frame-pointer $(SANITIZE) -Wno-maybe-uninitialized
CFLAGS_tsan := -O1 -g -fsanitize=thread -Wno-maybe-uninitialized -Wno-tsan
CFLAGS_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link $(SANITIZE)
# gcc loses sight of initializations under sanitizers, and TSan of fences; clang knows neither warning. Translated code calls and
# returns in its own ways: programs must not ask for the processor's shadow stacks, as some distributions' compilers have them do.
COMMON := -std=gnu17 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unknown-warning-option -Wno-gnu-variable-sized-type-not-at-end -D_GNU_SOURCE -I. -pthread -fPIE -fcf-protection=none
LINK := -pthread -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed

# The translator's helpers run between guest instructions, with the guest's x87 and SIMD state in the
# registers: they must not touch it, and sanitizers would. BT_HEAVY runs with that state saved.
BT_HEAVY := cpu/bt/vm.c cpu/bt/signals.c cpu/bt/heavy.c cpu/bt/state.c cpu/bt/stats.c cpu/bt/pv.c
BT_LIGHT := $(filter-out $(BT_HEAVY),$(wildcard cpu/bt/*.c))
LIGHT := -mgeneral-regs-only -fno-stack-protector

# Flags for source $(2) in mode $(1). Libraries are asked for when they are needed, not before: they may
# be installed by this very invocation.
light_flags = $(filter-out -fsanitize=% -fno-sanitize%,$(CFLAGS_$(1))) $(LIGHT)
lib_flags = $(if $(filter net/nat/%,$(1)),$(shell pkg-config --cflags $(PKGS_maru-nat)))
flags = $(COMMON) $(if $(filter $(BT_LIGHT),$(2)),$(light_flags),$(CFLAGS_$(1))) $(call lib_flags,$(2)) $(CFLAGS)
libs = $(if $(strip $(1)),$(shell pkg-config --libs $(1)))

# The rules of one tree, build/$(1)/.
define tree
CC_$(1) ?= $$(CC)

build/$(1)/%.o: %.c build/$(1)/.flags
	@mkdir -p $$(@D)
	@echo "  CC      $$@"
	$$(Q)$$(CC_$(1)) $$(call flags,$(1),$$<) -MMD -MP -c -o $$@ $$<

build/$(1)/%.o: %.S build/$(1)/.flags
	@mkdir -p $$(@D)
	@echo "  AS      $$@"
	$$(Q)$$(CC_$(1)) $$(call flags,$(1),$$<) -MMD -MP -c -o $$@ $$<

# Holds the command, so that another compiler or other flags rebuild the tree.
build/$(1)/.flags: always
	@mkdir -p $$(@D)
	@echo '$$(CC_$(1)) $$(call flags,$(1)) $$(LIGHT)' | cmp -s - $$@ || \
		echo '$$(CC_$(1)) $$(call flags,$(1)) $$(LIGHT)' >$$@

$(foreach p,$(PROGRAMS),$(call program,$(1),$(p)))

# All rooms but the mains, for tests; a thin archive, so that a test links only what it calls.
build/$(1)/rooms.a: $(addprefix build/$(1)/,$(ROOM_OBJS))
	@rm -f $$@
	$$(Q)ar rcsT $$@ $$^

build/$(1)/tests/unit/%: build/$(1)/tests/unit/%.o build/$(1)/rooms.a
	@echo "  LD      $$@"
	$$(Q)$$(CC_$(1)) $$(CFLAGS_$(1)) $$(LINK) -o $$@ $$^ $$(call libs,$$(PKGS)) -lZydis -lm
endef

define program

build/$(1)/$(2): $(addprefix build/$(1)/,$(call objects,$(ROOMS_$(2))))
	@echo "  LD      $$@"
	$$(Q)$$(CC_$(1)) $$(CFLAGS_$(1)) $$(LINK) -o $$@ $$^ $$(call libs,$$(PKGS_$(2)))
endef

$(foreach m,$(MODES),$(eval $(call tree,$(m))))

build/fuzz/fuzz/%: build/fuzz/fuzz/%.o build/fuzz/rooms.a
	@echo "  LD      $@"
	$(Q)$(CC_fuzz) -fsanitize=fuzzer,address,undefined $(LINK) -o $@ $^ $(call libs,$(PKGS)) -lZydis -lm

# Bare-metal test kernels: each tests/bare/test_* is one ELF image, linked with tests/bare/lib/*; those named
# test_32_* are 32-bit programs. Beside each lies tests/bare/run under its name, which runs it.
BARE_CFLAGS := -std=gnu17 -Wall -Wextra -Werror -Wno-unused-parameter -O1 -g -ffreestanding -fno-pic -fno-pie \
	-fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing -mno-red-zone \
	-mgeneral-regs-only -Wno-unknown-warning-option -Itests/bare
BARE := $(patsubst %,build/%,$(basename $(wildcard tests/bare/test_*.c tests/bare/test_*.S)))
BARE_LIB := $(basename $(notdir $(wildcard tests/bare/lib/*.c tests/bare/lib/*.S)))
BARE_DEPS := $(BARE:=.d) $(foreach w,64 32,$(BARE_LIB:%=build/tests/bare/lib$(w)/%.d))

# Rules for programs $(1) and their library in lib$(2).
define bare
build/tests/bare/lib$(2)/%.o: tests/bare/lib/%.c Makefile
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(BARE_CFLAGS) -m$(2) -MMD -MP -c -o $$@ $$<

build/tests/bare/lib$(2)/%.o: tests/bare/lib/%.S Makefile
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(BARE_CFLAGS) -m$(2) -MMD -MP -c -o $$@ $$<

$(1:=.o): build/tests/bare/%.o: tests/bare/%.c Makefile
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(BARE_CFLAGS) -m$(2) -MMD -MP -c -o $$@ $$<

$(1:=.elf): %.elf: %.o $(BARE_LIB:%=build/tests/bare/lib$(2)/%.o) tests/bare/link.ld
	@echo "  LD      $$@"
	$$(Q)$$(CC) -m$(2) -nostdlib -static -no-pie -Wl,--build-id=none,-z,noexecstack,--no-warn-rwx-segments,-T,tests/bare/link.ld \
		-o $$@ $$(filter %.o,$$^)
endef
$(eval $(call bare,$(filter build/tests/bare/test_32_%,$(BARE)),32))
$(eval $(call bare,$(filter-out build/tests/bare/test_32_%,$(BARE)),64))

$(BARE): %: %.elf
	@ln -sf ../../../tests/bare/run $@

# ---- Targets -------------------------------------------------------------------------------------

.PHONY: all run test test-unit test-bare test-long fuzz-brief bench bench-compare profile install clean help deps always

all: $(addprefix $(B)/,$(PROGRAMS)) ## build the programs into build/MODE/ (release, debug, asan, tsan)

run: deps all ## build, make a Debian guest once, boot it
	@scripts/run $(B)

# Unit tests run as users get them and under ASan and UBSan; those about threads also under TSan.
# What boots a VM uses the release programs.
TSAN_TESTS := loop vmclock log bus memory chardev net_socket raw block_workers qcow2 qcow2_crash virtio_blk
TSAN_UNIT := $(filter $(addprefix tests/unit/test_,$(TSAN_TESTS)),$(UNIT))
UNIT_PROGRAMS = $(addprefix build/release/,$(UNIT)) $(addprefix build/asan/,$(UNIT)) \
	$(addprefix build/tsan/,$(TSAN_UNIT))
FUZZ_PROGRAMS := $(addprefix build/fuzz/,$(FUZZ))
# The short ones first.
TEST_SCRIPTS := $(sort $(wildcard tests/*/test_*.sh tests/*/test_*.pl))
TEST_SCRIPTS := $(filter-out tests/boot/%,$(TEST_SCRIPTS)) $(filter tests/boot/%,$(TEST_SCRIPTS))
RUN_TESTS := BUILD=build/release CC="$(CC)" BT_LIGHT="$(BT_LIGHT:.c=.o)" tests/run -o build/log

test: deps $(addprefix build/release/,$(PROGRAMS)) $(addprefix build/tsan/,$(PROGRAMS)) $(UNIT_PROGRAMS) $(FUZZ_PROGRAMS) $(BARE) ## all tests but the long ones
	@$(RUN_TESTS) -j 2 tests/arrows tests/headers tests/light $(UNIT_PROGRAMS) tests/fuzz $(BARE) $(TEST_SCRIPTS)

test-unit: $(addprefix build/release/,maru-nat maru-share) $(UNIT_PROGRAMS) ## the unit tests only
	@$(RUN_TESTS) -j 2 $(UNIT_PROGRAMS)

test-bare: $(addprefix build/release/,$(PROGRAMS)) $(BARE) ## the bare-metal tests only
	@$(RUN_TESTS) -j 2 $(BARE)

test-long: deps $(addprefix build/release/,$(PROGRAMS)) $(UNIT_PROGRAMS) $(FUZZ_PROGRAMS) $(BARE) ## the tests that take hours
	@FUZZ_SEED=0 FUZZ_SECONDS=600 $(RUN_TESTS) -t 86400 $(sort $(wildcard tests/long/*.sh)) tests/fuzz

fuzz-brief: $(FUZZ_PROGRAMS) ## each fuzz target for some seconds
	@$(RUN_TESTS) tests/fuzz

bench: deps $(addprefix build/release/,$(PROGRAMS)) ## speed against the host and QEMU; BENCH="--quick gcc fp" chooses
	@bench/run $(BENCH)

RESULTS = $(if $(OLD)$(NEW),"$(OLD)" "$(NEW)",$(shell ls build/bench/*.json 2>/dev/null | tail -n 2))
bench-compare: ## what changed between two results: OLD=a.json NEW=b.json [BY=cpu]
	@bench/report $(if $(BY),--by $(BY)) $(RESULTS)

profile: deps all ## where the time goes while a Debian guest runs COMMAND='...'
	@scripts/profile-guest $(B) "$(COMMAND)"

install: all ## install under DESTDIR and PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin
	install $(addprefix $(B)/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin
	$(foreach s,1 5 7 8,$(if $(wildcard man/*.$(s)),install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man$(s) $(wildcard man/*.$(s))))
	install -Dt $(DESTDIR)$(PREFIX)/lib/maru/guest $(wildcard guest/*)
	$(if $(wildcard cli/completion/maru.bash),install -Dm644 cli/completion/maru.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/maru)
	$(if $(wildcard cli/completion/_maru),install -Dm644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions cli/completion/_maru)

clean: ## remove everything that was built
	rm -rf build

# Who only runs maru needs no test tools, and who tests no QEMU.
deps: ## install the Debian packages that all this needs
	@scripts/deps $(if $(filter run,$(MAKECMDGOALS)),build run) $(if $(filter test test-long,$(MAKECMDGOALS)),build run test) \
		$(if $(filter test-long,$(MAKECMDGOALS)),long) $(if $(filter bench profile,$(MAKECMDGOALS)),build run $(filter bench profile,$(MAKECMDGOALS)))

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' Makefile | expand -t 23

# `make run`, `make test`, `make bench` and `make profile` install first what compiling needs, and build on all processors.
ifneq ($(filter run test test-long bench profile,$(MAKECMDGOALS)),)
MAKEFLAGS += -j$(shell nproc)
$(foreach m,$(MODES),build/$(m)/.flags): | deps
endif

-include $(foreach m,$(MODES),$(patsubst %.o,build/$(m)/%.d,$(ROOM_OBJS) $(MAINS:=.o) $(UNIT:=.o) $(FUZZ:=.o)))
-include $(BARE_DEPS)
