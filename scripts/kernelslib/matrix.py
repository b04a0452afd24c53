"""What there is to boot: kernels, NICs, and the modes that each NIC's driver has on each kernel.

The modes are what the guest's runner asserts, the first of them as what `--xdp auto` has to find. So a driver that turns
out better or worse than this table fails the run, and the table gets corrected with its source.
"""

from dataclasses import dataclass

from .common import Trouble

# Names as users give them, and the version that decides what a driver can do; the newest has all that there is.
KERNELS = {"6.1": (6, 1), "6.12": (6, 12), "newest": (99,)}
MODES = ("zero-copy", "copy", "generic", "off")
NEVER = (999,)
ALWAYS = (0,)


@dataclass(frozen=True)
class Nic:
    """One way to give the guest eth0 and eth1, joined."""

    name: str
    driver: str
    # QEMU's device and its properties.
    device: str
    # The first kernel whose driver runs XDP itself, and the first that lets an AF_XDP socket share its rings.
    native: tuple
    zero_copy: tuple
    # A PCIe device that wants a root port of its own; q35's root bus takes it, but the driver then misses capabilities.
    own_port: bool = False
    # More than one queue pair: a tap device carries them, a hub doesn't.
    queue_pairs: int = 1
    # The cases worth their time here; all, where none is named.
    cases: tuple = ()

    def modes(self, kernel):
        """The modes of this driver on that kernel, best first."""
        version = KERNELS[kernel]
        has = {"zero-copy": version >= self.zero_copy, "copy": version >= self.native}
        return [mode for mode in MODES if has.get(mode, True)]

    @property
    def injector(self):
        """The guest's name of a third NIC on the hub, for frames that QEMU's models of physical NICs won't send."""
        return "" if self.driver == "virtio_net" else "eth2"

    def arguments(self):
        """What QEMU is told: two NICs, on one hub or on the taps that network.Bridge makes."""
        words = []
        for number in (0, 1):
            end = f"id=end{number}"
            if self.queue_pairs > 1:
                words += ["-netdev", f"tap,{end},ifname=tap{number},script=no,downscript=no,queues={self.queue_pairs}"]
            else:
                words += ["-netdev", f"hubport,{end},hubid=0"]
            # No boot ROM: nothing boots from these.
            device = f"{self.device},netdev=end{number},mac=52:54:00:12:00:0{number + 1},romfile="
            if self.own_port:
                words += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1}"]
                device += f",bus=port{number}"
            words += ["-device", device]
        if self.injector:
            words += ["-netdev", "hubport,id=end2,hubid=0"]
            words += ["-device", "virtio-net-pci,netdev=end2,mac=52:54:00:12:00:03,romfile="]
        return words


# virtio_net refuses XDP while the device may hand it merged or unsummed packets (virtnet_xdp_set in
# drivers/net/virtio_net.c), and zero-copy unless DMA addresses are the device's own (iommu_platform; EINVAL otherwise).
_VIRTIO = (
    "virtio-net-pci,iommu_platform=on,disable-legacy=on,"
    "gso=off,guest_tso4=off,guest_tso6=off,guest_ufo=off,guest_csum=off,guest_ecn=off"
)

# All but the wide area and WireGuard, which are about the kernel: virtio's guests have those.
_OF_DRIVERS = ("ladder", "mtu", "fetch-v4", "fetch-v6", "vlan", "frames", "fragments", "pktgen", "hand-over", "queue-growth",
               "link-flap", "kill", "term")  # fmt: skip

NICS = {
    nic.name: nic
    for nic in (
        # Zero-copy: receiving came with 6.11, sending and the flag that allows the bind with 6.14; 6.12 answers
        # EOPNOTSUPP (run here).
        Nic("virtio", "virtio_net", _VIRTIO, native=ALWAYS, zero_copy=(6, 14)),
        # 2 vectors a pair, one for the control queue, one for configuration changes. What several queues make no difference
        # to is virtio's.
        Nic("virtio-mq", "virtio_net", f"{_VIRTIO},mq=on,vectors=10", native=ALWAYS, zero_copy=(6, 14), queue_pairs=4,
            cases=("ladder", "fetch-v4", "hand-over", "queue-growth", "link-flap", "kill")),
        # Native since 5.10, zero-copy since 6.14 ("igb: Add AF_XDP zero-copy Rx support" and its Tx half).
        Nic("igb", "igb", "igb", native=(5, 10), zero_copy=(6, 14), own_port=True, cases=_OF_DRIVERS),
        # Native since 6.6 ("vmxnet3: Add XDP support."); no zero-copy.
        Nic("vmxnet3", "vmxnet3", "vmxnet3", native=(6, 6), zero_copy=NEVER, cases=_OF_DRIVERS),
        # No ndo_bpf at all: generic XDP only.
        Nic("e1000e", "e1000e", "e1000e", native=NEVER, zero_copy=NEVER, own_port=True,
            cases=("ladder", "fetch-v4", "vlan", "frames", "term")),
    )
}


@dataclass(frozen=True)
class Plan:
    """One guest: what it boots, and which of the driver's modes it goes through."""

    kernel: str
    nic: Nic
    modes: tuple

    @property
    def name(self):
        return f"{self.kernel}-{self.nic.name}"

    @property
    def best(self):
        """What `--xdp auto` has to find, whichever modes were asked for."""
        return self.nic.modes(self.kernel)[0]


def plan(kernels=(), nics=(), modes=()):
    """The guests to boot, of those that were asked for; nothing given means everything."""
    guests = []
    for kernel in KERNELS:
        for nic in NICS.values():
            if (kernels and kernel not in kernels) or (nics and nic.name not in nics):
                continue
            wanted = tuple(mode for mode in nic.modes(kernel) if not modes or mode in modes)
            if wanted:
                guests.append(Plan(kernel, nic, wanted))
    if not guests:
        raise Trouble(
            f"no driver among {', '.join(nics) or 'all'} has {' or '.join(modes)} on {', '.join(kernels) or 'any kernel'}; "
            "scripts/kernels --list says which has what"
        )
    return guests
