#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 7200
#
# The KVM engine on a host without /dev/kvm: QEMU emulates an AMD processor with SVM, in it Debian's kernel has a (slow, but real) KVM, and
# there maru runs the bare-metal tests, moves state from engine to engine, and boots a small guest.
#
#   tests/long/kvm.sh [TEST…]    TEST: the name of a bare-metal test without test_; all of them that a KVM of this kind can run by default
#
# The kernel and its modules are those of the package linux-image-*-amd64; KVM_KERNEL_DEB names one that is here already.

set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$top/${BUILD:-build/release}
work=$(mktemp -d "${TMPDIR:-/tmp}/maru-kvm.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

skip()
{
	echo "1..0 # SKIP $1"
	exit 0
}

for tool in qemu-system-x86_64 dpkg-deb cpio busybox; do
	command -v $tool >/dev/null || skip "there is no $tool"
done
deb=${KVM_KERNEL_DEB-}
if [ -z "$deb" ]; then
	package=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*-amd64\)$/\1/p' | head -n 1)
	[ -n "$package" ] || skip "apt knows no package linux-image-amd64"
	mkdir "$work/deb"
	(cd "$work/deb" && apt-get -qq download "$package") >/dev/null 2>&1 || skip "$package cannot be fetched"
	deb=$(echo "$work"/deb/*.deb)
fi
dpkg-deb -x "$deb" "$work/package" || exit 1
kernel=$(echo "$work"/package/boot/vmlinuz-*)

: >"$work/skips"
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,modules,maru,tests}
cp "$(command -v busybox)" "$root/bin/"
for module in virt/lib/irqbypass arch/x86/kvm/kvm drivers/crypto/ccp/ccp arch/x86/kvm/kvm-amd; do
	cp "$work"/package/lib/modules/*/kernel/$module.ko "$root/modules/" || exit 1
done
programs=("$build/maru" "$build/maru-vm")
if [ -x "$build/tests/unit/test_engines" ]; then
	programs+=("$build/tests/unit/test_engines")
else
	echo "engines on KVM # SKIP $build/tests/unit/test_engines is not built" >>"$work/skips"
fi
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
	case $1 in
	cpu | 32_modes | 32_segments | 32_tasks | 32_paging | exceptions | paging | gates)
		echo 'QEMU checks neither segment limits nor reserved bits nor XSETBV as a processor does' ;;
	events) echo 'QEMU 7.2 ends by an assertion of its own' ;;
	interrupts) echo "$twice" ;;
	timers) echo 'time is too slow here' ;;
	ipi) echo 'the kernel chooses another processor for lowest priority than the one of lowest priority, and hears one logical id each' ;;
	reset) echo 'it wants a run for each of its parts' ;;
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
	echo "linux on KVM # SKIP $twice, so that it hangs now and then; KVM_LINUX=1 boots it" >>"$work/skips"
elif ! cp "$kernels/"{vmlinuz,initrd.img} "$root/tests/" 2>/dev/null; then
	echo "linux on KVM # SKIP there is no kernel in $kernels" >>"$work/skips"
fi

cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/maru HOME=/tmp
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev 2>/dev/null
for m in irqbypass kvm ccp kvm-amd; do insmod /modules/$m.ko; done
ls -l /dev/kvm
echo "@probe $(maru-vm --probe-fd 1 --kvm-fd 5 --all 5<>/dev/kvm)"
[ ! -x /maru/test_engines ] || { echo @begin engines; timeout 600 test_engines; echo "@end engines $?"; }
for t in /tests/*.elf; do
	[ -e $t ] || continue
	n=${t##*/test_}; n=${n%.elf}
	echo "@begin $n"
	timeout 900 maru run --engine kvm --kernel $t --debug-exit --debugcon /tmp/out --memory 128M --net none --serial none $(cat ${t%.elf}.args) </dev/null 2>/tmp/err
	s=$?
	cat /tmp/out; sed 's/^/# /' /tmp/err
	echo "@end $n $s"
done
if [ -e /tests/vmlinuz ]; then
	echo @begin linux
	# QEMU's processor does not let a hypervisor see XSETBV: KVM does not know XCR0, and takes it away again.
	mkfifo /tmp/in
	{ timeout 1500 maru run --engine kvm --kernel /tests/vmlinuz --initrd /tests/initrd.img --append 'console=ttyS0 noxsave' \
		--memory 128M --cpus 2 --net none </tmp/in 2>&1; echo $? >/tmp/status; } | tee /tmp/linux &
	exec 3>/tmp/in
	until grep -q 'small#' /tmp/linux || [ -e /tmp/status ]; do sleep 1; done
	echo 'grep -c processor /proc/cpuinfo; cat /sys/devices/system/clocksource/clocksource0/current_clocksource; poweroff -f' >&3
	until [ -e /tmp/status ]; do sleep 1; done
	echo "@end linux $(cat /tmp/status)"
fi
echo @over
poweroff -f
END
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
timeout -s KILL 7000 qemu-system-x86_64 -accel tcg,thread=single -cpu max,+svm,+npt -smp 2 -m 1500M -nodefaults -nographic -serial stdio -no-reboot \
	-kernel "$kernel" -initrd "$work/initrd" -append 'console=ttyS0 quiet panic=-1 mitigations=off' </dev/null 2>&1 | stdbuf -o0 tr -d '\r' | tee "${KVM_LOG:-$work/log}" | awk -v skips="$work/skips" '
	BEGIN { while ((getline line <skips) > 0) printf "ok %d - %s\n", ++n, line }
	/@probe/ { print "# " $0 }
	/^@begin/ { name = $2; plan = -1; seen = bad = 0; next }
	/^@end/ {
		good = name == "linux" ? $3 == 0 : seen > 0 && plan == seen && !bad
		if (!good) failed = 1
		printf "%sok %d - %s on KVM: %d results, status %s\n", good ? "" : "not ", ++n, name, seen, $3
		next
	}
	/^1\.\.[0-9]+/ { plan = substr($0, 4) + 0; next }
	/^ok / { seen++; next }
	/^not ok / { seen++; bad++; print "# " name ": " $0; next }
	/^@over/ { over = 1 }
	name { print "# " $0 }
	END {
		printf "%sok %d - the guest in QEMU came to its end\n", over ? "" : "not ", ++n
		print "1.." n
		exit failed || !over
	}'
