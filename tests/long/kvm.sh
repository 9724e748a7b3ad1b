#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 7200
#
# The KVM engine on a host without /dev/kvm: an emulator makes a processor with virtualization, in it Debian's kernel has a (slow, but
# real) KVM, and there maru runs the bare-metal tests, moves state from engine to engine, and boots a small guest. What it says when
# KVM cannot be opened or fails is looked at, too.
#
#   tests/long/kvm.sh [TEST…]    TEST: the name of a bare-metal test without test_; all of them that a KVM of this kind can run by default
#
# KVM_OUTER=bochs    Bochs, an Intel processor with VMX, EPT and unrestricted guests: slower than QEMU, and exact;
#                    KVM_CPU=corei7_skylake_x is another of its models, which Linux takes XSAVE from
# KVM_OUTER=qemu     QEMU, an AMD processor with SVM (the default); KVM_QEMU='PROGRAM OPTION…' is another than the one in PATH
# KVM_LINUX=1        boots Linux with 1 and 2 vCPUs, too, before all else
# KVM_LOG=FILE       keeps the serial port's text
#
# The kernel and its modules are those of the package linux-image-*-cloud-amd64; KVM_KERNEL_DEB names one that is here already.

set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/multiboot.sh"
build=$top/${BUILD:-build/release}
work=$(mktemp -d "${TMPDIR:-/tmp}/maru-kvm.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

skip()
{
	echo "1..0 # SKIP $1"
	exit 0
}

outer=${KVM_OUTER:-qemu}
cpu=${KVM_CPU:-broadwell_ult}
read -ra qemu <<<"${KVM_QEMU:-qemu-system-x86_64}"
case $outer in
qemu) tools=("${qemu[0]}") ;;
bochs) tools=(bochs xorriso) ;;
*) skip "KVM_OUTER is $outer, and not qemu or bochs" ;;
esac
[ $outer = qemu ] || [ -e /usr/lib/ISOLINUX/isolinux.bin ] || skip "there is no isolinux"
for tool in "${tools[@]}" dpkg-deb cpio busybox; do
	command -v $tool >/dev/null || skip "there is no $tool"
done
deb=${KVM_KERNEL_DEB-}
if [ -z "$deb" ]; then
	package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*-amd64\)$/\1/p' | head -n 1)
	[ -n "$package" ] || skip "apt knows no package linux-image-cloud-amd64"
	mkdir "$work/deb"
	(cd "$work/deb" && apt-get -qq download "$package") >/dev/null 2>&1 || skip "$package cannot be fetched"
	deb=$(echo "$work"/deb/*.deb)
fi
dpkg-deb -x "$deb" "$work/package" || exit 1
kernel=$(echo "$work"/package/boot/vmlinuz-*)

: >"$work/skips"
root=$work/root
mkdir -p "$root"/{bin,dev,etc,proc,sys,tmp,modules,maru,tests}
cp "$(command -v busybox)" "$root/bin/"
echo $outer >"$root/etc/outer"
for module in virt/lib/irqbypass arch/x86/kvm/kvm arch/x86/kvm/kvm-amd arch/x86/kvm/kvm-intel; do
	cp "$work"/package/lib/modules/*/kernel/$module.ko "$root/modules/" || exit 1
done
programs=("$build/maru" "$build/maru-vm")
for t in engines engine_dirty engine_lapics; do
	if [ -x "$build/tests/unit/test_$t" ]; then
		programs+=("$build/tests/unit/test_$t")
	else
		echo "$t on KVM # SKIP $build/tests/unit/test_$t is not built" >>"$work/skips"
	fi
done
cp "${programs[@]}" "$root/maru/"
ldd "${programs[@]}" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^\t\(\/[^ ]*\) (.*/\1/p' | sort -u | while read -r lib; do
	mkdir -p "$root$(dirname "$lib")"
	cp -L "$lib" "$root$lib"
done

# QEMU's TCG, not KVM, decides what is exact below: these tests find its gaps, and are skipped. One thread for all its processors: with
# one each, QEMU 7.2 loses code that another processor changes (tests/bare/test_smc fails in it without any KVM, too).
twice='one of some thousand interrupts comes a second time, where IF is 0: QEMU as the host of KVM in it shows the same'
why_not()
{
	case $outer,$1 in
	*,reset) echo 'it wants a run for each of its parts' ;;
	*,ipi) echo 'the kernel chooses another processor for lowest priority than the one of lowest priority, and hears one logical id each' ;;
	qemu,cpu | qemu,32_modes | qemu,32_segments | qemu,32_tasks | qemu,32_paging | qemu,exceptions | qemu,paging | qemu,gates)
		echo 'QEMU checks neither segment limits nor reserved bits nor XSETBV as a processor does' ;;
	bochs,cpu | bochs,events | bochs,gates | bochs,paging) echo 'a few of its results are others in Bochs, without KVM, too (doc/engine.md)' ;;
	bochs,32_tasks | bochs,timers) echo 'a few of its results are others on KVM (doc/engine.md)' ;;
	qemu,events) echo 'QEMU ends by an assertion of its own' ;;
	qemu,interrupts) echo "$twice" ;;
	qemu,timers) echo 'time is too slow here' ;;
	esac
}

wanted=("$@")
if [ $# = 0 ]; then
	for elf in "$top"/build/tests/bare/test_*.elf; do
		t=${elf##*/test_}
		t=${t%.elf}
		reason=$(why_not "$t")
		if [ -n "$reason" ]; then
			echo "$t on KVM # SKIP $reason" >>"$work/skips"
		else
			wanted+=("$t")
		fi
	done
fi
for t in "${wanted[@]}"; do
	cp "$top/build/tests/bare/test_$t.elf" "$root/tests/" || exit 1
	# Of its runs the first.
	sed -n 's/^ \* run: *//p; s/^ \* run:$//p' "$top/tests/bare/test_$t".[cS] | head -n 1 >"$root/tests/test_$t.args"
done
kernels=${XDG_CACHE_HOME:-$HOME/.cache}/maru/kernels/cloud-amd64
if [ -z "${KVM_LINUX-}" ]; then
	case $outer in
	qemu) reason="$twice, so that it hangs now and then" ;;
	bochs) reason='it takes some minutes' ;;
	esac
	echo "linux on KVM # SKIP $reason; KVM_LINUX=1 boots it" >>"$work/skips"
elif ! cp "$kernels/"{vmlinuz,initrd.img} "$root/tests/" 2>/dev/null; then
	echo "linux on KVM # SKIP there is no kernel in $kernels" >>"$work/skips"
fi

multiboot "$root/tests/exit.bin" '\xb8\x03\x00\x00\x00\xba\xf4\x00\x00\x00\xef\xf4' # mov $3, %eax; mov $0xf4, %edx; out %eax, (%dx); hlt
# mov $0xd0000000, %edi; fnstenv (%edi), where no RAM is: KVM's emulator does not have it; and exit
multiboot "$root/tests/fnstenv.bin" '\xbf\x00\x00\x00\xd0\xd9\x37\xb8\x03\x00\x00\x00\xba\xf4\x00\x00\x00\xef\xf4'

cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/maru HOME=/tmp
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev 2>/dev/null
insmod /modules/irqbypass.ko; insmod /modules/kvm.ko
# QEMU's processor does not let a hypervisor see XSETBV: KVM does not know XCR0, and takes it away again.
read outer </etc/outer
noxsave=
[ $outer != qemu ] || noxsave=noxsave
if grep -q vmx /proc/cpuinfo; then insmod /modules/kvm-intel.ko; else insmod /modules/kvm-amd.ko; fi
ls -l /dev/kvm
echo "@probe $(maru-vm --probe-fd 1 --kvm-fd 5 --all 5<>/dev/kvm)"
for cpus in $([ ! -e /tests/vmlinuz ] || echo 1 2); do
	echo @begin linux-$cpus
	rm -f /tmp/in /tmp/status; mkfifo /tmp/in; >/tmp/linux
	head -c 1048576 /dev/urandom >/tmp/data
	{ cat /tmp/data; head -c 1048576 /dev/zero; } >/tmp/disk
	{ timeout 1500 maru run --engine kvm --kernel /tests/vmlinuz --initrd /tests/initrd.img --append "console=ttyS0 $noxsave" \
		--memory 128M --cpus $cpus --net none --disk /tmp/disk,format=raw </tmp/in 2>&1; echo $? >/tmp/status; } | tee /tmp/linux &
	exec 3>/tmp/in
	until grep -q 'small#' /tmp/linux || [ -e /tmp/status ]; do sleep 1; done
	printf '%s\n' 'grep -c processor /proc/cpuinfo; cat /sys/devices/system/clocksource/clocksource0/current_clocksource' \
		'dd if=/dev/vda of=/dev/vda bs=64k count=16 seek=16 conv=fsync; poweroff -f' >&3
	until [ -e /tmp/status ]; do sleep 1; done
	exec 3>&-
	# The first half of its disk is now in the second, too: data and doorbells come through.
	dd if=/tmp/disk of=/tmp/half bs=1048576 skip=1 2>/dev/null
	cmp /tmp/data /tmp/half || echo disk >>/tmp/status
	echo "@end linux-$cpus" $(cat /tmp/status)
done
for t in /maru/test_*; do
	[ -e $t ] || continue
	n=${t##*/test_}
	echo @begin $n
	timeout 600 $t
	echo "@end $n $?"
done
for t in /tests/*.elf; do
	[ -e $t ] || continue
	n=${t##*/test_}; n=${n%.elf}
	echo "@begin $n"
	timeout 900 maru run --engine kvm --kernel $t --debug-exit --debugcon /tmp/out --memory 128M --net none --serial none $(cat ${t%.elf}.args) </dev/null 2>/tmp/err
	s=$?
	cat /tmp/out; sed 's/^/# /' /tmp/err
	echo "@end $n $s"
done
echo @begin troubles
n=0
# says STATUS TEXT ARGUMENT… — maru ends with this status, and says this.
says()
{
	local status=$1 text=$2 got
	shift 2
	timeout 200 $maru "$@" </dev/null >/tmp/out 2>&1
	got=$?
	n=$((n + 1))
	if [ $got = $status ] && { [ -z "$text" ] || grep -q -- "$text" /tmp/out; }; then echo "ok $n - $who: maru $*: $text"; else
		echo "not ok $n - $who: maru $*: $text (status $got)"
		sed 's/^/# /' /tmp/out
	fi
}
small="--memory 64M --net none --serial none --debug-exit"
who=root maru=maru
says 7 '' run --engine kvm $small --kernel /tests/exit.bin
says 6 'KVM cannot emulate an instruction .*at 0x100025, bytes d9 37 .*--engine bt' run --engine kvm $small --kernel /tests/fnstenv.bin
says 7 '' run --engine bt $small --kernel /tests/fnstenv.bin
says 2 "avx512f" run --engine kvm --cpu-features avx512f $small --kernel /tests/exit.bin
echo 'user:x:1000:1000::/tmp:/bin/sh' >/etc/passwd
chmod 1777 /tmp; chmod 600 /dev/kvm
who='a user' maru='start-stop-daemon -S -c user -x /maru/maru --'
says 2 'you may not open /dev/kvm; join its group.*--engine bt' run --engine kvm $small --kernel /tests/exit.bin
says 7 '' run $small --kernel /tests/exit.bin
says 0 '"reason": "you may not open /dev/kvm"' doctor -o json
echo "1..$n"
echo @end troubles 0
echo @over
# Bochs loses what its port has not written yet; it is ended from outside.
[ $outer != bochs ] || sleep 600
poweroff -f
END
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
append='console=ttyS0 quiet panic=-1 mitigations=off'

on_qemu()
{
	timeout -s KILL 7000 "${qemu[@]}" -accel tcg,thread=single -cpu max,+svm,+npt -smp 2 -m 1500M -nodefaults -nographic -serial stdio -no-reboot \
		-kernel "$kernel" -initrd "$work/initrd" -append "$append" </dev/null 2>&1
}

# From a CD. Time there is instructions, 200 million of them a second. Its display is a terminal of its own, which somebody has to read.
on_bochs()
{
	local cd=$work/cd screen='' bochs drain port

	mkdir -p "$cd/isolinux"
	cp "$kernel" "$cd/vmlinuz" && cp "$work/initrd" "$cd/" &&
		cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$cd/isolinux/" || return
	printf '%s\n' 'DEFAULT l' 'LABEL l' ' KERNEL /vmlinuz' ' INITRD /initrd' " APPEND $append tsc=reliable lpj=800000 random.trust_cpu=on" >"$cd/isolinux/isolinux.cfg"
	xorriso -as mkisofs -quiet -o "$work/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
		-boot-info-table "$cd" 2>/dev/null || return
	cat >"$work/bochsrc" <<-END
		display_library: term
		romimage: file=/usr/share/bochs/BIOS-bochs-latest
		vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
		megs: 1024
		cpu: model=$cpu, ips=200000000, reset_on_triple_fault=0
		clock: sync=none
		ata0-master: type=cdrom, path=$work/cd.iso, status=inserted
		boot: cdrom
		com1: enabled=1, mode=file, dev=$work/serial
		log: $work/bochs.log
		debug: action=ignore
		info: action=ignore
		panic: action=fatal
		error: action=ignore
		sound: driver=dummy
	END
	echo c >"$work/continue"
	: >"$work/serial"
	TERM=xterm timeout -s KILL 14000 bochs -q -f "$work/bochsrc" -rc "$work/continue" </dev/null >"$work/bochs.out" 2>&1 &
	bochs=$!
	until [ -n "$screen" ] || ! kill -0 $bochs 2>/dev/null; do
		sleep 1
		screen=$(sed -n 's/.*screen "\(.*\)".*/\1/p' "$work/bochs.out")
	done
	[ -z "$screen" ] || { stty raw -echo -F "$screen"; cat "$screen" >/dev/null & drain=$!; }
	tail -c +1 -f --pid=$bochs "$work/serial" &
	port=$!
	until ! kill -0 $bochs 2>/dev/null || grep -q '^@over' "$work/serial"; do sleep 2; done
	sleep 2
	kill -KILL $bochs 2>/dev/null
	wait $bochs $port ${drain-} 2>/dev/null
	sed -n 's/.*PANIC/Bochs: PANIC/p' "$work/bochs.log"
}

"on_$outer" | stdbuf -o0 tr -d '\r' | tee "${KVM_LOG:-$work/log}" | awk -v skips="$work/skips" -v outer="$outer" '
	BEGIN { while ((getline line <skips) > 0) printf "ok %d - %s\n", ++n, line }
	/@probe/ { print "# " $0 }
	/^@begin/ { name = $2; plan = -1; seen = bad = 0; next }
	/^@end/ {
		good = name ~ /^linux/ ? $3 == 0 && NF == 3 : seen > 0 && plan == seen && !bad
		if (!good) failed = 1
		printf "%sok %d - %s on KVM: %d results, status %s\n", good ? "" : "not ", ++n, name, seen, $3
		next
	}
	/^1\.\.[0-9]+/ { plan = substr($0, 4) + 0; next }
	/^ok / { seen++; next }
	/^not ok / { seen++; bad++; print "# " name ": " $0; next }
	/^@over/ { over = 1 }
	/^Bochs: / { print "# " $0 }
	name { print "# " $0 }
	END {
		printf "%sok %d - the guest in %s came to its end\n", over ? "" : "not ", ++n, outer
		print "1.." n
		exit failed || !over
	}'
