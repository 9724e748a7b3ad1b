# maru: one Makefile for everything. `make help` lists the targets.
MODE ?= release
B := build/$(MODE)
CC ?= gcc
PKGS := jansson
CFLAGS_release := -O2 -g
CFLAGS_debug := -O0 -g
CFLAGS_asan := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -g -fsanitize=thread
CFLAGS_ALL := -std=gnu17 -Wall -Wextra -Werror -Wno-unused-parameter -I. -D_GNU_SOURCE -pthread -MMD -MP $(CFLAGS_$(MODE)) $(CFLAGS)

ROOMS := base mem cpu cpu/bt dev dev/pci dev/virtio block net ui machine vm
VM_OBJS := $(patsubst %.c,$(B)/%.o,$(foreach r,$(ROOMS),$(wildcard $(r)/*.c)))

all: $(B)/maru-vm

$(B)/maru-vm: $(VM_OBJS)
	$(CC) $(CFLAGS_ALL) -o $@ $^ -ljansson

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

-include $(VM_OBJS:.o=.d)
