#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A guest that an older recipe made: maru says so and runs it, and the guest is made anew without the loss of what is on its disk. maru is
# installed in a folder here; the recipe is that of debian:12, with a Debian of a few files.

. "$(dirname "$0")/lib.sh"

export XDG_CACHE_HOME=$dir/cache HOME=$dir
images=$dir/cache/maru/images guest=$images/debian-12
mkdir -p "$dir/bin" "$dir/lib/maru"
cp "$maru" "$dir/bin/maru"
ln -s "${maru%/*}/maru-vm" "$dir/bin/maru-vm"
cp -r guest "$dir/lib/maru/"
maru=$dir/bin/maru script=$dir/lib/maru/guest/debian-12
multiboot "$dir/exit.bin" '\xb8\x03\x00\x00\x00\xba\xf4\x00\x00\x00\xef\xf4'
recipe=$(sed -n 's/^recipe=//p' "$script")

# guest RECIPE — its folder, as that recipe would make it ('' is none).
guest()
{
	local member=
	[ -z "$1" ] || member="\"recipe\": $1,"
	mkdir -p "$guest"
	cat >"$guest/manifest.json" <<-END
		{ "manifest": 1, "name": "debian", "version": "12", $member
		"disks": [ { "file": "disk.raw", "format": "raw" } ], "kernel": "vmlinuz", "cpus": 1, "memory_mib": 32 }
	END
	cp "$dir/exit.bin" "$guest/vmlinuz"
	head -c 1M /dev/zero >"$guest/disk.raw"
}

# runs NAME — the guest, which ends as it should; what is said is in $dir/err.
runs()
{
	timeout -s KILL 60 "$maru" run "$1" --debug-exit --serial none --net none </dev/null >"$dir/out" 2>"$dir/err"
	[ $? = 7 ]
}

[ "$recipe" -ge 1 ]
result $? "the recipe of debian:12 has a number"
guest "$recipe"
runs debian:12 && [ ! -s "$dir/err" ]
result $? "nothing is said of a guest that is as its recipe"
for made_by in '' $((recipe - 1)); do
	guest "$made_by"
	runs debian:12 && [ "$(wc -l <"$dir/err")" = 1 ] && grep -q "older recipe .*'maru image pull debian:12 --renew'" "$dir/err"
	result $? "one that an older recipe made (${made_by:-from before they had numbers}) is said to, and runs"
done
"$maru" image list >"$dir/err" 2>&1 && grep -q 'debian:12 .*older recipe' "$dir/err"
result $? "the list says it"
"$maru" image info debian:12 >"$dir/err" 2>&1 && grep -q '^recipe: .*maru image pull debian:12 --renew' "$dir/err"
result $? "and what is known of the guest"
"$maru" image info debian:12 -o json 2>"$dir/err" | grep -q '"outdated": true'
result $? "also as JSON"
"$maru" image pull debian:12 >"$dir/err" 2>&1 && grep -q 'older recipe; --renew makes it anew' "$dir/err"
result $? "a pull leaves it alone, and says how it is made anew"
guest $((recipe + 1))
runs debian:12 && [ ! -s "$dir/err" ]
result $? "nothing is said of one that a newer recipe made"
guest '"1"'
"$maru" image info debian:12 >"$dir/err" 2>&1
[ $? = 2 ] && grep -q "'recipe' is missing or not what it should be" "$dir/err"
result $? "a recipe that is no number"
guest 0
rm -f "$script"
runs debian:12 && [ ! -s "$dir/err" ]
result $? "nothing is said where the catalogue has no recipe for a guest"
cp guest/debian-12 "$script"

# ---- Made anew ----

for program in mke2fs ssh-keygen flock; do
	command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing=$program
done
[ -r /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="Debian's keyring"
[ "$(id -u)" = 0 ] || command -v fakeroot >/dev/null || missing=fakeroot
if [ -n "${missing-}" ]; then
	tests=$((tests + 1))
	echo "ok $tests - a guest made anew # SKIP there is no $missing"
	finish_tests
fi
mkdir "$dir/fake"
cat >"$dir/fake/mmdebstrap" <<'END'
#!/bin/bash
set -e
tree=$(mktemp -d -p "$TMPDIR")
cd "$tree"
mkdir -p boot etc/apt etc/default etc/systemd/system etc/systemd/network root tmp var/lib
echo kernel >boot/vmlinuz-1
echo initrd >boot/initrd.img-1
tar -cf "${@: -2:1}" .
rm -r "$tree"
END
cp "$dir/fake/mmdebstrap" "$dir/fake/newuidmap"
chmod +x "$dir/fake/"*
pull() { PATH=$dir/fake:$PATH timeout 60 "$maru" image pull debian:12 --mirror http://192.0.2.1/ --size 64M "$@" </dev/null >"$dir/err" 2>&1; }

guest 0
echo precious >"$guest/disk.raw"
pull --renew
result $? "--renew makes it anew"
[ "$(cat "$guest-old/disk.raw")" = precious ] && "$maru" image info debian:12-old >"$dir/err" 2>&1 && grep -q '^guest: *debian:12-old$' "$dir/err"
result $? "what was there is kept under another name"
cp "$dir/exit.bin" "$guest-old/vmlinuz"
runs debian:12-old && [ ! -s "$dir/err" ]
result $? "by which it runs"
"$maru" image info debian:12 -o json >"$dir/err" 2>&1 && grep -q '"outdated": false' "$dir/err"
result $? "the new one is as its recipe"
pull --renew
[ $? = 1 ] && grep -q "maru image rm debian:12-old" "$dir/err" && [ "$(cat "$guest-old/disk.raw")" = precious ]
result $? "what is kept is not lost by another --renew"
"$maru" image rm debian:12-old >"$dir/err" 2>&1 && [ ! -e "$guest-old" ] && [ -e "$guest/manifest.json" ]
result $? "it can be removed"
pull --force && [ ! -e "$guest-old" ] && [ "$(find "$images" -name '.debian-12.*' ! -name '*.lock')" = '' ]
result $? "--force keeps nothing"
rm -r "$guest"
pull --renew && [ ! -e "$guest-old" ] && [ -e "$guest/manifest.json" ]
result $? "--renew of a guest that is not there makes it"

finish_tests
