#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# maru image without making a guest: disk images, and a guest of the catalogue that is a folder with a manifest, whole or damaged.

. "$(dirname "$0")/lib.sh"

export XDG_CACHE_HOME=$dir/cache
guest=$dir/cache/maru/images/debian-12
mkdir -p "$guest"
cd "$dir" || exit 1

# says STATUS TEXT ARGUMENT… — maru image ends so, and says it.
says()
{
	local status=$1 text=$2 got=0
	shift 2
	timeout 20 "$maru" image "$@" </dev/null >"$dir/err" 2>&1 || got=$?
	[ "$got" = "$status" ] && { [ -z "$text" ] || grep -qF -- "$text" "$dir/err"; }
	result $? "maru image $*: ${text:-works}"
}

# ---- Disk images ----

says 0 'new.qcow2: qcow2, 20 GiB' create new.qcow2 20G
says 2 'exists already' create new.qcow2 20G
says 0 'format:     qcow2' info new.qcow2
says 2 "say new,format=raw or new,format=qcow2" create new 1G
says 0 'new: raw, 1 GiB' create new 1G --format raw
says 2 "say new,format=raw or new,format=qcow2" info new
says 0 'format:     raw' info new,format=raw
says 0 'the size of its backing file' create mine.qcow2 --backing new.qcow2
says 0 'backing:    new.qcow2 (qcow2)' info mine.qcow2
says 2 'only a qcow2 image' create other.img --backing new.qcow2
says 2 'needs a file and a size' create other.img
says 2 "image info: 'frobnicate=a-long-word' is unknown" info new.qcow2,frobnicate=a-long-word
says 2 "image create: format=vmdk is unknown" create new.vmdk 1G --format vmdk

# ---- Guests ----

says 2 "'maru image list'" info debian:12
says 0 'GUEST' list
manifest()
{
	sed "$1" >"$guest/manifest.json" <<-END
		{ "manifest": 1, "name": "debian", "version": "12", "description": "A guest",
		"disks": [ { "file": "disk.raw", "format": "raw" } ],
		"kernel": "vmlinuz", "cpus": 2, "memory_mib": 1024,
		"ssh": { "user": "root", "key": "id_ed25519" },
		"created": "2025-05-20T12:00:00Z" }
	END
}
manifest ''
head -c 1M /dev/zero >"$guest/disk.raw"
says 0 'A guest' list
says 0 "ssh -i $guest/id_ed25519 -p 2222 root@localhost" info debian:12
timeout 20 "$maru" image info debian:12 -o json | perl -MJSON::PP -0777 -e '
	my $g = decode_json(<STDIN>);
	exit !($g->{here} && $g->{cpus} == 2 && $g->{memory} == 1 << 30 && $g->{ssh}{user} eq "root" && $g->{ssh}{key} =~ m{^/.*/id_ed25519$});' 2>"$dir/err"
result $? 'and as JSON'
manifest 's/A guest/\\u001b[2J\\u009b/'
timeout 20 "$maru" image list >"$dir/err" 2>&1 && timeout 20 "$maru" image info debian:12 >>"$dir/err" 2>&1 &&
	! LC_ALL=C grep -qP '[\x00-\x09\x0b-\x1f\x80-\xff]' "$dir/err" && [ "$(grep -cF '?[2J' "$dir/err")" = 2 ]
result $? 'what a manifest says cannot play with the terminal'
manifest ''
multiboot "$dir/halt.bin" '\xfa\xf4\xeb\xfd'
"$maru" run --kernel "$dir/halt.bin" --disk "$guest/disk.raw" --memory 32M --net none --serial none --control "$dir/ctl" </dev/null >/dev/null 2>&1 &
vm=$!
for _ in $(seq 100); do
	timeout 10 "$maru" status "$dir/ctl" 2>/dev/null | grep -q running && break
	sleep 0.1
done
timeout 20 "$maru" image pull debian:12 --force >"$dir/err" 2>&1
[ $? = 2 ] && grep -q 'disk.raw. is in use' "$dir/err" && [ -e "$guest/disk.raw" ]
result $? 'a guest is not made anew over a disk that is in use'
kill "$vm"
sleep 0.5
kill "$vm"
wait "$vm"
manifest '/"ssh"/d'
timeout 20 "$maru" image info debian:12 >"$dir/err" 2>&1 && ! grep -q 'log in' "$dir/err"
result $? 'a guest without ssh'
for damage in 's/"root"/"-oProxyCommand=x"/' 's/"id_ed25519"/"..\/key"/' 's/"user": "root", //' 's/"vmlinuz"/"..\/vmlinuz"/' 's/"cpus": 2/"cpus": 0/' \
	's/1024/7/' 's/"raw"/"vmdk"/' 's/"disk.raw"/7/' 's/"12"/null/' 's/"debian"/"..\/x"/' 's/"version"/"recipe": -1, "version"/'; do
	manifest "$damage"
	says 2 'manifest.json is damaged' info debian:12
done
manifest 's/"manifest": 1/"manifest": 2/'
says 2 'use a newer maru' info debian:12
echo '{' >"$guest/manifest.json"
says 2 'cannot be read' info debian:12
manifest ''
says 2 'one guest' rm --force debian:12
says 0 '' rm debian:12
[ ! -e "$guest" ]
result $? 'it is gone'

finish_tests
