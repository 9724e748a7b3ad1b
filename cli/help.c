// SPDX-License-Identifier: Apache-2.0
/* What `maru help` and `--help` say: examples first, for they are what people look for. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

static const char main_text[] =
	"maru runs virtual machines anywhere: no root, no daemon, no hardware virtualization needed.\n"
	"\n"
	"  maru image pull debian:12                    make a Debian 12 guest (once)\n"
	"  maru run debian:12                           run it; you are on its console, Ctrl-] opens a menu\n"
	"  maru run debian:12 --cpus 4 --memory 4G --publish 2222:22\n"
	"  maru run --kernel vmlinuz --initrd initrd.img --append 'console=ttyS0'\n"
	"\n"
	"Commands:\n"
	"  run      run a virtual machine\n"
	"  image    guests of the catalogue and disk images\n"
	"  list     the VMs that run\n"
	"  status   what a running VM is and takes\n"
	"  balloon  memory of a running VM: what it is used for, giving some back\n"
	"  doctor   what this host can do for VMs, and what to mend\n"
	"  guest    what the agent in a running guest can do: exec, ip, info, shutdown, freeze ...\n"
	"  help     this, or 'maru help COMMAND'\n"
	"\n"
	"'maru COMMAND --help' shows the options of a command, with examples; man maru has the whole story.\n";

static const char run_text[] =
	"usage: maru run [IMAGE] [OPTION]...\n"
	"\n"
	"Runs a virtual machine in the foreground until the guest powers off.\n"
	"IMAGE is a guest of the catalogue ('maru image list') or a disk file (with --kernel).\n"
	"\n"
	"Examples:\n"
	"  maru run debian:12\n"
	"      Debian, with its own defaults. On the console Ctrl-] opens a menu.\n"
	"  maru run debian:12 --cpus 4 --memory 4G --publish 2222:22 --publish 127.0.0.1:8080:80\n"
	"      More of everything; ssh -i ~/.cache/maru/images/debian-12/id_ed25519 -p 2222 root@localhost\n"
	"      reaches the guest ('maru image info debian:12' has the line).\n"
	"  maru run --kernel vmlinuz --initrd initrd.img --append 'console=ttyS0'\n"
	"      Any Linux kernel.\n"
	"  maru run disk.qcow2 --kernel vmlinuz --append 'root=/dev/vda1 rw console=ttyS0'\n"
	"      A disk of yours. It is vda; further ones come with --disk.\n"
	"  maru run --kernel test.elf --debug-exit --net none; echo $?\n"
	"      A test kernel (Multiboot or PVH) that ends by writing V to port 0xf4: status (V<<1)|1.\n"
	"\n"
	"Machine:\n"
	"  --cpus N                  virtual processors, 1 to 64 (the guest's default, else 1)\n"
	"  --memory SIZE             such as 512M or 4G (the guest's default, else 1G)\n"
	"  --ksm                     this host may keep pages once that are equal in several guests\n"
	"  --hugepages               memory in pages of 2 MiB, as far as this host has them\n"
	"  --engine auto|bt|kvm      what executes guest code (auto: KVM if it is fast and exact here)\n"
	"  --cpu-features NAME,...   start only if the guest's processor has these, named as in /proc/cpuinfo\n"
	"  --paravirt on|off         offer the guest KVM's paravirtual interfaces: clock, IPIs, ... (on)\n"
	"  --name NAME               for messages, and to name the running VM in other commands\n"
	"What to boot:\n"
	"  --kernel FILE             Linux bzImage, ELF with PVH note, or Multiboot 1 image\n"
	"  --initrd FILE             initial RAM disk; the module of a Multiboot kernel\n"
	"  --append STRING           kernel command line (added to that of a guest)\n"
	"Devices:\n"
	"  --disk FILE[,format=raw|qcow2][,readonly=on][,backing=FILE]\n"
	"                            a disk; repeat for more\n"
	"  --net user|none           user: the guest reaches the network as your programs do (user)\n"
	"  --publish [ADDR:]HOSTPORT:GUESTPORT\n"
	"                            a port of this host leads to the guest's; repeat for more\n"
	"  --share TAG=FOLDER[,readonly=on]\n"
	"                            a folder for the guest: mount -t virtiofs TAG /mnt\n"
	"  --vsock PATH              virtio sockets: a program that connects to PATH and sends 'CONNECT 1234' reaches\n"
	"                            port 1234 of the guest; the guest's connections to port N of its host reach PATH_N\n"
	"  --port name=NAME,unix:PATH\n"
	"                            a port /dev/virtio-ports/NAME of the guest's leads to that socket; repeat for more\n"
	"  --serial stdio|none|file:PATH|unix:PATH\n"
	"                            where the serial port goes (stdio)\n"
	"Tests and debugging:\n"
	"  --debug-exit              a write to I/O port 0xf4 ends the VM\n"
	"  --debugcon FILE           what is written to I/O port 0xe9 goes there\n"
	"  --gdb ADDR:PORT|unix:PATH wait for gdb: 'target remote :1234' with --gdb 127.0.0.1:1234; with ,wait=off behind\n"
	"                            it the VM runs at once, and gdb may come later\n"
	"  --control PATH            control socket: JSON lines, see man maru-vm (else one goes by the VM's name)\n"
	"  --verbose                 say more about what happens\n"
	"\n"
	"Exit status: 0 the guest powered off; odd: --debug-exit; 2 could not be started; 4 the guest crashed\n"
	"(triple fault); 6 internal error; 8 ended by a second signal.\n";

static const char image_text[] =
	"usage: maru image pull|list|create|info|rm ...\n"
	"\n"
	"Guests of the catalogue:\n"
	"  maru image list                       what there is, and what is here\n"
	"  maru image pull debian:12             make the guest, from Debian's packages (no root needed)\n"
	"  maru image pull debian:12 --force     make it anew; what is on its disk is lost\n"
	"  maru image pull debian:12 --renew     make it anew; the one that is here is debian:12-old then\n"
	"  maru image pull debian:12 --help      what else can be chosen\n"
	"  maru image info debian:12             where it is, what it has, how to log in by ssh\n"
	"  maru image rm debian:12               remove it\n"
	"\n"
	"Disk images:\n"
	"  maru image create disk.qcow2 20G      a new disk, which takes space as it is written\n"
	"  maru image create disk.img 20G        the same in raw format; --format raw|qcow2 for other names\n"
	"  maru image create mine.qcow2 --backing base.qcow2\n"
	"                                        starts as base.qcow2 is, and keeps only what differs\n"
	"  maru image info disk.qcow2            format, size, space taken\n"
	"\n"
	"list and info take -o json.\n";

static const char list_text[] =
	"usage: maru list [-o json]\n"
	"\n"
	"The VMs of yours that run: name, state, engine, processors, memory, for how long, and the process of their maru run,\n"
	"whose SIGTERM is the guest's power button. One that does not answer within two seconds is shown as such.\n";

static const char status_text[] =
	"usage: maru status VM [-o json]\n"
	"\n"
	"  maru status debian:12              engine and why, memory, disks, network, what the host shares, the sandbox\n"
	"  maru status debian:12 -o json      the same for programs; man maru-vm has the members\n"
	"\n"
	"VM is the name of a running VM, or the path of its control socket.\n";

static const char balloon_text[] =
	"usage: maru balloon VM [SIZE] [-o json]\n"
	"\n"
	"  maru balloon debian:12          how much memory the guest has, and what it says about it\n"
	"  maru balloon debian:12 512M     the guest is to keep 512 MiB and give the rest back to this host\n"
	"  maru balloon debian:12 1G       it may take memory back, up to all that it was started with\n"
	"\n"
	"VM is the name of a running VM, or the path of its control socket. The guest needs the driver virtio_balloon,\n"
	"as every Linux distribution has; under memory pressure it takes back by itself what it gave. Besides, it reports\n"
	"memory that it does not use at the moment, which goes back to this host without being asked for.\n";

static const char doctor_text[] =
	"usage: maru doctor [-o json]\n"
	"\n"
	"Says what this host has for virtual machines: processor, KVM and the translator, measured; memory, network,\n"
	"what the sandbox is made of, firmware, room. For each lack, the sentence that mends it.\n"
	"\n"
	"Exit status: 0 virtual machines can run; 1 they cannot; 2 the doctor could not find out.\n";

static const char guest_text[] =
	"usage: maru guest ping|info|ip|exec|shutdown|freeze|thaw VM ...\n"
	"\n"
	"  maru guest ping debian:12                     does the agent answer?\n"
	"  maru guest info debian:12                     the guest's name and system\n"
	"  maru guest ip debian:12                       its network addresses\n"
	"  maru guest exec debian:12 /bin/uname -a       runs a program in the guest; its output and status are ours\n"
	"  maru guest exec --timeout 60 debian:12 /usr/bin/apt-get update\n"
	"  maru guest shutdown debian:12                 powers off; with --reboot it starts again\n"
	"  maru guest freeze debian:12                   its file systems are written out and stand still, for a copy of the disk\n"
	"  maru guest thaw debian:12                     until this\n"
	"\n"
	"VM is the name of a running VM, or the path of its control socket. In the guest runs the stock agent, package\n"
	"qemu-guest-agent; debian:12 has it. All take -o json.\n";

static const struct {
	const char *command, *text;
} texts[] = { { "", main_text }, { "run", run_text }, { "image", image_text }, { "doctor", doctor_text },
	    { "list", list_text }, { "status", status_text }, { "balloon", balloon_text }, { "guest", guest_text }, { "help", main_text } };

const char *help_text(const char *command)
{
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
		if (!strcmp(texts[i].command, command))
			return texts[i].text;
	return NULL;
}

struct error *help_unknown(const char *command)
{
	const char *names[ARRAY_SIZE(texts)] = { NULL }, *near;

	for (unsigned i = 1; i < ARRAY_SIZE(texts); i++) /* the first is of none */
		names[i - 1] = texts[i].command;
	near = cli_nearest(command, names);
	return error_new("there is no command '%s'%s%s%s; 'maru help' lists them", command, near ? ": did you mean '" : "",
			 near ? near : "", near ? "'?" : "");
}

int cmd_help(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	const char *text = help_text(!strcmp(command, "--help") || !strcmp(command, "-h") ? "" : command);

	if (!text)
		return cli_fail(help_unknown(command));
	fputs(text, stdout);
	return 0;
}
