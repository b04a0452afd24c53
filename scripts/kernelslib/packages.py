"""Debian packages, downloaded from signed suites and unpacked; nothing is installed.

Two apt roots of our own: one with Debian 12 and its backports (the emulator, whose igb model Debian 12's own QEMU 7.2
lacks, and the kernels 6.1 and 6.12), one with unstable alone (the newest kernel). Debian's archive keyring verifies both.
The emulator comes with everything that it needs down to its C library, so this machine's own libraries don't matter.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tarfile

from .common import EMULATOR_ROOM_BYTES, KERNEL_ROOM_BYTES, Trouble, make_sure_of_room, no_room, say, says_full

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# As apt would keep them on a machine that follows these suites.
STABLE = "stable", [
    ("http://deb.debian.org/debian", "bookworm"),
    ("http://deb.debian.org/debian", "bookworm-backports"),
    ("http://deb.debian.org/debian-security", "bookworm-security"),
]
UNSTABLE = "unstable", [("http://deb.debian.org/debian", "unstable")]

EMULATOR = ["qemu-system-x86", "busybox-static"]
EMULATOR_SUITE = "bookworm-backports"
# Counted up when what is unpacked changes in a way that the keys below don't tell.
LAYOUT = 2
# Of a kernel's modules: all of a NIC's, and what these depend on. The rest would be 300 MB.
MODULES = re.compile(r"kernel/(arch|crypto|lib|net|drivers/(dca|i2c|net|pps|ptp|virtio))/")
UNUSED = re.compile(r"kernel/drivers/net/wireless/")
# The kernel itself, and the list of the modules that are built into it.
BESIDES = re.compile(r"/(vmlinuz[^/]*|modules\.builtin)$")

# The kernel's name : where its packages are, and the pattern (POSIX) of the one that holds it. Debian's 6.1 and 6.12 change
# their names with every upload: the highest version is taken.
KERNELS = {
    "6.1": (STABLE, r"linux-image-6\.1\.0-[0-9]+-amd64-unsigned"),
    "6.12": (STABLE, r"linux-image-6\.12\.[0-9]+\+deb12-amd64-unsigned"),
    "newest": (UNSTABLE, None),
}


class Packages:
    """The downloads under one directory. Safe against another run: the second waits for the first."""

    def __init__(self, directory):
        self.directory = directory
        self._apts = {}

    def __enter__(self):
        self._lock = open(os.path.join(self.directory, "lock"), "w", encoding="ascii")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run's downloads")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        self._lock.close()

    def emulator(self):
        """The directory with QEMU, its libraries and busybox."""
        root = os.path.join(self.directory, "emulator")
        key = _key(EMULATOR_SUITE, *EMULATOR)
        if not _is_complete(root, key):
            make_sure_of_room(self.directory, EMULATOR_ROOM_BYTES)
            apt = self._apt(STABLE)
            say(f"downloading {' '.join(EMULATOR)} and all libraries that they need (37 MB)")
            _unpack(apt.download_with_libraries(EMULATOR, EMULATOR_SUITE), root, key)
        return root

    def kernel(self, name):
        """The directory of an unpacked kernel, by its name in KERNELS."""
        root = os.path.join(self.directory, f"linux-{name}")
        suites, pattern = KERNELS[name]
        key = _key(suites[0], pattern, MODULES.pattern, UNUSED.pattern, BESIDES.pattern)
        if not _is_complete(root, key):
            make_sure_of_room(self.directory, KERNEL_ROOM_BYTES)
            apt = self._apt(suites)
            packages = apt.newest_kernel() if pattern is None else [apt.highest(pattern)]
            say(f"downloading {' '.join(packages)} (70 to 120 MB)")
            _unpack(apt.download(packages), root, key, _is_wanted_of_a_kernel)
        return root

    def _apt(self, suites):
        """One for each set of suites, so that their lists are fetched once a run."""
        if suites[0] not in self._apts:
            self._apts[suites[0]] = Apt(self.directory, suites)
        return self._apts[suites[0]]


class Apt:
    """An apt root of our own: the machine's sources, lists and installed packages stay as they are."""

    def __init__(self, directory, suites):
        for tool in ("apt-get", "dpkg-deb"):
            if not shutil.which(tool):
                raise Trouble(f"{tool} is not here: the kernels and QEMU come as Debian packages; run this on Debian")
        if not os.path.exists(KEYRING):
            raise Trouble(f"{KEYRING} is not here, so nothing can be verified; run: apt-get install debian-archive-keyring")
        name, lines = suites
        self.root = os.path.join(directory, f"apt-{name}")
        for inner in ("lists/partial", "archives/partial"):
            os.makedirs(os.path.join(self.root, inner), exist_ok=True)
        # As if nothing were installed: what is downloaded then needs nothing of this machine.
        status = os.path.join(self.root, "status")
        with open(status, "w", encoding="ascii"):
            pass
        sources = os.path.join(self.root, "sources.list")
        with open(sources, "w", encoding="ascii") as file:
            file.writelines(f"deb [signed-by={KEYRING}] {uri} {suite} main\n" for uri, suite in lines)
        self.options = [
            option
            for setting in (
                f"Dir::Etc::SourceList={sources}",
                "Dir::Etc::SourceParts=/dev/null",
                # Pins of this machine are about its own packages.
                "Dir::Etc::Preferences=/dev/null",
                "Dir::Etc::PreferencesParts=/dev/null",
                f"Dir::State::Lists={self.root}/lists",
                f"Dir::State::status={status}",
                f"Dir::Cache={self.root}",
                # Neither root nor its lock is needed for what only downloads; another user couldn't write here.
                "Debug::NoLocking=1",
                "APT::Sandbox::User=" + ("root" if os.geteuid() == 0 else ""),
                "APT::Architecture=amd64",
                # Whatever this machine's apt.conf allows: nothing unsigned.
                "Acquire::AllowInsecureRepositories=false",
                "Acquire::AllowWeakRepositories=false",
                "Acquire::AllowDowngradeToInsecureRepositories=false",
                "APT::Get::AllowUnauthenticated=false",
                "Acquire::Check-Valid-Until=true",
                # Only lists of packages.
                "Acquire::Languages=none",
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
                "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false",
                "Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false",
                "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
                # A mirror that can't be reached is said soon.
                "Acquire::Retries=2",
                "Acquire::http::Timeout=20",
            )
            for option in ("-o", setting)
        ]
        say(f"asking Debian what there is in {', '.join(suite for _, suite in lines)}")
        self._run("apt-get", "update", "--quiet", "--quiet")

    def _run(self, program, *arguments, cwd=None):
        done = subprocess.run(
            [program, *self.options, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        # apt-get update ends with 0 when a suite can't be had; an old list would then pass for a new one.
        complaint = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W: Failed"))]
        if done.returncode or complaint:
            if says_full(done.stderr):
                raise Trouble(no_room(self.root))
            words = (complaint or done.stderr.splitlines() or ["no reason given"])[0]
            raise Trouble(
                f"{program} {arguments[0]}: {words} (exit {done.returncode}); the first run needs the network "
                "(deb.debian.org, or a proxy that apt knows), later ones only target/kernels"
            )
        return done.stdout

    def download(self, packages):
        """Downloads exactly these; returns the files."""
        self._clean()
        self._run("apt-get", "download", "--quiet", "--quiet", *packages, cwd=f"{self.root}/archives")
        return self._archives()

    def download_with_libraries(self, packages, suite):
        """Downloads these and everything that they need; returns the files."""
        self._clean()
        flags = ["--quiet", "--quiet", "--yes", "--no-install-recommends", "--download-only"]
        self._run("apt-get", "install", *flags, "--target-release", suite, *packages)
        return self._archives()

    def _clean(self):
        """What a run that was ended left half way must not be taken for a part of this download."""
        for archive in self._archives():
            os.unlink(archive)

    def _archives(self):
        directory = f"{self.root}/archives"
        return [os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(".deb")]

    def highest(self, pattern):
        """The package of the highest version among those whose whole name matches."""
        names = self._run("apt-cache", "search", "--names-only", f"^{pattern}$").splitlines()
        names = [line.split(" ", 1)[0] for line in names]
        if not names:
            raise Trouble(f"Debian has no package like {pattern} any more: look at KERNELS in scripts/kernelslib/packages.py")
        return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])

    def newest_kernel(self):
        """The packages behind linux-image-amd64: since 7.x the kernel image and its modules are two."""
        image = next((name for name in self._depends("linux-image-amd64") if re.match(r"linux-image-\d", name)), None)
        if image is None:
            raise Trouble("linux-image-amd64 of Debian unstable names no kernel: try again later, or --kernel 6.12")
        parts = [name for name in self._depends(image) if re.match(r"linux-(binary|modules)-\d", name)]
        return parts or [image]

    def _depends(self, package):
        return re.findall(r"Depends: (\S+)", self._run("apt-cache", "depends", package))


def _is_wanted_of_a_kernel(name):
    if BESIDES.search(name):
        return True
    return bool(re.search(r"\.ko(\.\w+)?$", name) and MODULES.search(name) and not UNUSED.search(name))


def _key(*words):
    """What decides which files are unpacked: a directory with another key was unpacked by another version of this file."""
    return "\n".join([f"layout {LAYOUT}", *map(str, words), ""])


def _is_complete(root, key):
    try:
        with open(os.path.join(root, "complete"), encoding="utf-8") as file:
            return file.read() == key
    except FileNotFoundError:
        return False


def _unpack(archives, root, key, is_wanted=None):
    """Unpacks packages into `root`, all of them or the files that are wanted, and removes the archives.

    The key is written last, so it also says that nothing is missing."""
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    for archive in archives:
        if is_wanted is None:
            _run_dpkg("-x", archive, root)
        else:
            _unpack_some(archive, root, is_wanted)
        os.unlink(archive)
    with open(os.path.join(root, "complete"), "w", encoding="utf-8") as file:
        file.write(key)


def _unpack_some(archive, root, is_wanted):
    broken = None
    # dpkg-deb's few words wait in the pipe until its end.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdin=subprocess.DEVNULL, **pipes) as dpkg:
        try:
            with tarfile.open(fileobj=dpkg.stdout, mode="r|") as tar:
                for member in tar:
                    if member.isfile() and is_wanted(member.name):
                        tar.extract(member, root, filter="data")
        except tarfile.TarError as error:
            # Most likely dpkg-deb broke off, and its own words say more.
            broken = error
        # Else it waits for somebody to read on.
        dpkg.stdout.close()
        words = dpkg.stderr.read().decode(errors="replace").strip()
    if dpkg.returncode or broken:
        why = words or broken or "no reason given"
        raise Trouble(
            f"dpkg-deb --fsys-tarfile {os.path.basename(archive)}: exit {dpkg.returncode}: {why}; "
            "run it again, which downloads it again"
        )


def _run_dpkg(*arguments):
    done = subprocess.run(["dpkg-deb", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if says_full(done.stderr):
        raise Trouble(no_room(arguments[-1]))
    if done.returncode:
        raise Trouble(f"dpkg-deb {arguments[0]}: exit {done.returncode}: {done.stderr.strip()}")
