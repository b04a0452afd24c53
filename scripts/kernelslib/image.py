"""The guest's files: an initramfs with beam, the case runner, the programs that both use, and the kernel's modules."""

import glob
import lzma
import os
import re
import shutil
import subprocess

from .common import Trouble, no_room, says_full

# Programs that the cases run, as this machine has them, with their libraries.
PROGRAMS = ["ip", "ss", "tc", "ethtool", "curl", "nginx", "bash", "wg", "ping", "flock"]
# Modules that the cases need; a case without its module would say "skip", so each must be there or be built in.
MODULES = ["virtio_pci", "veth", "8021q", "xsk_diag", "pktgen", "sch_netem", "wireguard"]
# The driver of the NIC that sends what others won't (matrix.Nic.injector).
INJECTOR = "virtio_net"
# What Debian left out of a kernel; the runner then asks beam alone whether a socket is in zero-copy.
LACKING = {"linux-6.1": {"xsk_diag"}}
# For kernels whose packages don't list what is built in, as 7.2's.
BUILT_IN = {"virtio_pci"}
# What INIT says of a module that the kernel doesn't take; machine.py looks for it.
REFUSED = "BEAM module refused:"

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run/netns /etc/netns /var/log /var/lib
/bin/busybox ln -s /run /var/run
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir -p /dev/pts /dev/shm /sys/fs/bpf
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox mount -t tmpfs tmp /dev/shm
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox --install -s /bin
# Where scripts look for these two.
ln -s /bin/env /usr/bin/env
ln -s /usr/bin/bash /bin/bash
export PATH=/usr/bin:/bin:/sbin HOME=/
ip link set lo up
echo "BEAM booted $(uname -r)"
for module in $(cat /modules/list); do
    insmod "/modules/$module.ko" || echo "@REFUSED@ $module"
done
. /job
echo "BEAM done"
# A terminal's settings are set once everything is sent; a power-off doesn't wait for that.
stty -F /dev/ttyS0 115200
stty -F /dev/ttyS1 115200
poweroff -f
""".replace("@REFUSED@", REFUSED)

PASSWD = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nwww-data:x:33:33:www-data:/:/bin/false\n"
GROUP = "root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\n"


def build(root, emulator, kernel, driver, files, job):
    """Makes the guest's file tree at `root`, and returns the kernel image.

    `files` maps a name in the guest to a file here, `job` is a shell script."""
    os.makedirs(os.path.join(root, "bin"))
    shutil.copy(_find(emulator, "bin/busybox", "usr/bin/busybox"), os.path.join(root, "bin/busybox"))
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    binaries = {}
    for program in PROGRAMS:
        found = shutil.which(program, path=search)
        if not found:
            raise Trouble(f"{program} is not here, and the guest needs it; run: scripts/setup --emulator")
        binaries[f"usr/bin/{program}"] = found
    for name, source in {**binaries, **files}.items():
        _copy(source, os.path.join(root, name))
    _libraries(root, [*binaries.values(), *(source for source in files.values() if _is_elf(source))])
    # The driver's NICs come first: they are to be eth0 and eth1.
    _modules(root, kernel, [*MODULES, driver, INJECTOR])
    for name, text, mode in (
        ("init", INIT, 0o755),
        ("job", job, 0o644),
        ("etc/passwd", PASSWD, 0o644),
        ("etc/group", GROUP, 0o644),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644),
    ):
        _write(os.path.join(root, name), text, mode)
    return _find(kernel, "boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")


def pack(root, archive):
    """Makes the initramfs of a tree: uncompressed, as the emulator would be slow to inflate it."""
    busybox = os.path.join(root, "bin/busybox")
    names = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
    command = [busybox, "cpio", "-o", "-H", "newc"]
    with open(archive, "wb") as file:
        packed = subprocess.run(command, cwd=root, input=names, stdout=file, stderr=subprocess.PIPE)
    if says_full(packed.stderr.decode(errors="replace")):
        raise Trouble(no_room(os.path.dirname(archive)))
    if packed.returncode:
        raise Trouble(f"busybox cpio: exit {packed.returncode}: {packed.stderr.decode(errors='replace').strip()}")


def _find(root, *patterns):
    for pattern in patterns:
        for found in glob.glob(os.path.join(root, pattern)):
            return found
    raise Trouble(f"the packages in {os.path.basename(root)} hold no {' or '.join(patterns)}: Debian's layout changed")


def _is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def _copy(source, to):
    os.makedirs(os.path.dirname(to), exist_ok=True)
    shutil.copy(source, to)


def _write(path, text, mode):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, mode)


def _libraries(root, binaries):
    listed = subprocess.run(["ldd", *binaries], capture_output=True, text=True).stdout
    missing = re.findall(r"(\S+) => not found", listed)
    if missing:
        raise Trouble(f"libraries that the guest's programs need are not here: {', '.join(sorted(set(missing)))}")
    for library in sorted(set(re.findall(r"(/\S+\.so[^\s:]*) \(", listed))):
        _copy(library, root + library)


def _modules(root, kernel, wanted):
    """Copies modules and what they depend on, decompressed, and writes the order in which they load."""
    files = {}
    for path in glob.glob(os.path.join(kernel, "**/*.ko*"), recursive=True):
        files[os.path.basename(path).split(".ko")[0].replace("-", "_")] = path
    built_in = _built_in(kernel)
    directory = os.path.join(root, "modules")
    os.makedirs(directory)
    order = []

    def add(name, wanted_by="the guest"):
        name = name.replace("-", "_")
        if name in order or name in built_in:
            return
        if name not in files:
            raise Trouble(
                f"{os.path.basename(kernel)} has no module {name}, which {wanted_by} needs, nor is it built in: look at "
                "MODULES in scripts/kernelslib/packages.py for what is unpacked, and in image.py for what is wanted"
            )
        body = _body(files[name])
        for needed in re.findall(rb"\0depends=([^\0]*)", body):
            for other in filter(None, needed.decode().split(",")):
                add(other, name)
        with open(os.path.join(directory, f"{name}.ko"), "wb") as file:
            file.write(body)
        order.append(name)

    for name in wanted:
        if name not in LACKING.get(os.path.basename(kernel), ()):
            add(name)
    _write(os.path.join(directory, "list"), "".join(f"{name}\n" for name in order), 0o644)


def _built_in(kernel):
    """The modules that are a part of the kernel itself."""
    names = set()
    lists = glob.glob(os.path.join(kernel, "**/modules.builtin"), recursive=True)
    for path in lists:
        with open(path, encoding="utf-8") as file:
            names |= {os.path.basename(line.strip()).removesuffix(".ko").replace("-", "_") for line in file}
    return names if lists else BUILT_IN


def _body(path):
    with open(path, "rb") as file:
        body = file.read()
    try:
        return lzma.decompress(body) if path.endswith(".xz") else body
    except lzma.LZMAError as error:
        directory = path.split("/lib/modules/")[0].removesuffix("/usr")
        raise Trouble(f"{path} can't be decompressed: {error}; remove {directory}, and it is fetched again") from None
