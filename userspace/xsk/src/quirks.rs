//! What is known of single drivers, beyond what the kernel says when one refuses.
//!
//! A row is here because a stock kernel with that driver was booted (`scripts/kernels`; "noted" is what earlier boots of
//! this project wrote down) and refused in just this way, or because the kernel's own history says so; each row tells
//! which. It's no list of what drivers can do: that is asked of
//! the kernel ([`crate::genl::netdev::xdp_features`]), and what it grants is read back after every bind.

/// What was asked of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To run a program.
    Native,
    /// To bind a socket without copies.
    ZeroCopy,
}

struct Quirk {
    driver: &'static str,
    asked: Asked,
    errno: i32,
    /// Why, and what helps.
    advice: &'static str,
}

const QUIRKS: [Quirk; 7] = [
    // Noted: 6.12 refuses. Booted: 7.2 grants it.
    Quirk {
        driver: "virtio_net",
        asked: Asked::ZeroCopy,
        errno: libc::EOPNOTSUPP,
        advice: "virtio_net has it from Linux 6.14 on",
    },
    // Booted: 7.2 refuses without the flag (though the driver says that it has zero-copy), grants it with.
    Quirk {
        driver: "virtio_net",
        asked: Asked::ZeroCopy,
        errno: libc::EINVAL,
        advice: "virtio_net needs a device that goes through the guest's IOMMU mapping (VIRTIO_F_ACCESS_PLATFORM); \
                 in QEMU: -device virtio-net-pci,iommu_platform=on,disable-legacy=on,...",
    },
    // Noted with QEMU 7.2's device. Not seen with QEMU 10's on a hub, which merges nothing, nor where the driver can tell
    // the device to stop (VIRTIO_NET_F_CTRL_GUEST_OFFLOADS).
    Quirk {
        driver: "virtio_net",
        asked: Asked::Native,
        errno: libc::EOPNOTSUPP,
        advice: "virtio_net needs a device that doesn't merge packets for the guest; in QEMU: -device virtio-net-pci,\
                 gso=off,guest_tso4=off,guest_tso6=off,guest_ufo=off,guest_csum=off,guest_ecn=off,...",
    },
    // Kernel history: "igb: Add AF_XDP zero-copy Rx support" and its Tx half came with 6.14. Booted: 7.2 grants it.
    Quirk {
        driver: "igb",
        asked: Asked::ZeroCopy,
        errno: libc::EOPNOTSUPP,
        advice: "igb has it from Linux 6.14 on",
    },
    // Booted: 7.2 refuses.
    Quirk {
        driver: "vmxnet3",
        asked: Asked::ZeroCopy,
        errno: libc::EOPNOTSUPP,
        advice: "vmxnet3 has it on no kernel up to 7.2",
    },
    // Kernel history: "vmxnet3: Add XDP support." of August 2023, which came with 6.6. Booted: 7.2 grants it.
    Quirk {
        driver: "vmxnet3",
        asked: Asked::Native,
        errno: libc::EOPNOTSUPP,
        advice: "vmxnet3 has it from Linux 6.6 on",
    },
    // Booted: 7.2 refuses.
    Quirk {
        driver: "e1000e",
        asked: Asked::Native,
        errno: libc::EOPNOTSUPP,
        advice: "e1000e has it on no kernel up to 7.2",
    },
];

/// What is known about a refusal.
pub(crate) fn advice(driver: Option<&str>, asked: Asked, errno: Option<i32>) -> Option<&'static str> {
    let fits =
        |quirk: &&Quirk| Some(quirk.driver) == driver && quirk.asked == asked && Some(quirk.errno) == errno;
    QUIRKS.iter().find(fits).map(|quirk| quirk.advice)
}

/// Why queues that come after the start get no zero-copy, whatever the driver says, where that is so.
///
/// virtio_net adds one queue pair a CPU when a program is attached, if the device has that many, and receives on them too
/// (`virtnet_xdp_set`). When the program goes they go, *before* the sockets do, and then `virtnet_xsk_pool_disable` refuses
/// to let go of a pool whose queue is beyond `curr_queue_pairs` (EINVAL, which nobody looks at). The next attachment
/// fills the queue from that freed pool. Booted: 7.2 fell over its null pointer in `xp_alloc_batch`, below
/// `virtnet_rx_resume_all`, after a gateway with such a socket had been killed.
pub(crate) fn new_queues_copy(driver: Option<&str>) -> Option<&'static str> {
    (driver == Some("virtio_net")).then_some(
        "virtio_net adds this queue for XDP, and would crash the kernel (7.2) once its socket is gone. To have \
         zero-copy on all queues, give the NIC as many as its device has before the start: ethtool -L",
    )
}

#[cfg(test)]
mod tests {
    //! Goal: advice is given for exactly the refusal that it is about.
    use super::*;

    #[test]
    fn each_refusal_has_its_own_advice() {
        for (n, quirk) in QUIRKS.iter().enumerate() {
            assert_eq!(
                advice(Some(quirk.driver), quirk.asked, Some(quirk.errno)),
                Some(quirk.advice),
                "row {n}"
            );
        }
        assert_eq!(advice(Some("veth"), Asked::ZeroCopy, Some(libc::EOPNOTSUPP)), None);
        assert_eq!(advice(Some("igb"), Asked::ZeroCopy, Some(libc::EBUSY)), None);
        assert_eq!(advice(None, Asked::Native, Some(libc::EOPNOTSUPP)), None);
        assert_eq!(advice(Some("igb"), Asked::ZeroCopy, None), None);
    }
}
