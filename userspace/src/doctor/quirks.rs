//! What is known of single drivers, beyond what the kernel says when it is asked. Told by the check that it concerns.
//!
//! Each row names where it can be read: a file of the kernel and its function, a commit, or what a boot of such a kernel
//! showed (those are in `userspace/xsk/src/quirks.rs`, where refusals are explained). Rows are about the drivers of Linux
//! as it is released, not about vendors' own.

use super::{
    finding::Note,
    host::{Host, Nic},
    kernel,
};

/// When a row is told.
enum When {
    Always,
    /// The kernel is older.
    Before(u32, u32),
    /// XDP would have fewer channels to spare than CPUs.
    FewSpare,
    /// More CPUs than this.
    Cpus(usize),
    /// A larger MTU than Ethernet's.
    Jumbo,
}

struct Quirk {
    driver: &'static str,
    check: &'static str,
    when: When,
    note: Note,
}

const fn quirk(
    driver: &'static str,
    check: &'static str,
    when: When,
    text: &'static str,
    source: &'static str,
) -> Quirk {
    Quirk { driver, check, when, note: Note { text, source } }
}

const BOOTED: &str = "booted: userspace/xsk/src/quirks.rs";
const REORDERS: &str = "with ports in the hash, fragments of UDP that isn't beam's may overtake each other";
const REOPENS: &str = "attaching a program resets the device: everything on it pauses, ssh too";

const QUIRKS: &[Quirk] = &[
    quirk(
        "virtio_net",
        "channels",
        When::FewSpare,
        "with fewer queue pairs to spare than CPUs, XDP_TX and redirects to other devices share one under a lock; \
         sockets are not concerned",
        "drivers/net/virtio_net.c, virtnet_xdp_set",
    ),
    quirk(
        "virtio_net",
        "lro",
        When::Always,
        "refuses XDP while the device merges packets for the guest and can't be told to stop",
        "drivers/net/virtio_net.c, virtnet_xdp_set",
    ),
    quirk("virtio_net", "trial-zero-copy", When::Before(6, 14), "has zero-copy from Linux 6.14 on", BOOTED),
    quirk(
        "virtio_net",
        "trial-zero-copy",
        When::Always,
        "binding resets the queue whether a program runs or not",
        "drivers/net/virtio_net.c, virtnet_sq_bind_xsk_pool",
    ),
    quirk(
        "veth",
        "channels",
        When::Always,
        "refuses XDP in the driver where the other end sends on more queues than this one receives on",
        "drivers/net/veth.c, veth_xdp_set",
    ),
    quirk(
        "veth",
        "mtu",
        When::Jumbo,
        "it is the other end's MTU that has to fit into a page",
        "drivers/net/veth.c, veth_xdp_set",
    ),
    quirk(
        "tun",
        "trial-zero-copy",
        When::Always,
        "takes programs, but no buffer pools: the kernel copies",
        "drivers/net/tun.c, tun_xdp",
    ),
    quirk(
        "i40e",
        "mtu",
        When::Always,
        "while a program runs, the MTU can't be raised beyond one buffer",
        "drivers/net/ethernet/intel/i40e/i40e_main.c, i40e_change_mtu",
    ),
    quirk(
        "ice",
        "xdp-features",
        When::Always,
        "has no XDP in safe mode, that is without its DDP firmware package",
        "drivers/net/ethernet/intel/ice/ice_main.c, ice_xdp_safe_mode",
    ),
    quirk(
        "ixgbe",
        "xdp-features",
        When::Always,
        "refuses XDP while SR-IOV is on",
        "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_xdp_setup",
    ),
    quirk(
        "ixgbe",
        "lro",
        When::Always,
        "refuses XDP on rings that merge packets (RSC, which is its LRO)",
        "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_xdp_setup",
    ),
    quirk(
        "ixgbe",
        "channels",
        When::Cpus(64),
        "has 64 transmit queues for XDP: with more CPUs they are shared under a lock, with more than 128 it refuses",
        "drivers/net/ethernet/intel/ixgbe/ixgbe_main.c, ixgbe_xdp_setup",
    ),
    quirk(
        "ixgbe",
        "rss",
        When::Always,
        REORDERS,
        "drivers/net/ethernet/intel/ixgbe/ixgbe_ethtool.c, \"enabling UDP RSS\"",
    ),
    quirk(
        "igb",
        "rss",
        When::Always,
        REORDERS,
        "drivers/net/ethernet/intel/igb/igb_ethtool.c, \"enabling UDP RSS\"",
    ),
    quirk(
        "igc",
        "rss",
        When::Always,
        REORDERS,
        "drivers/net/ethernet/intel/igc/igc_ethtool.c, \"enabling UDP RSS\"",
    ),
    quirk("igb", "trial-zero-copy", When::Before(6, 14), "has zero-copy from Linux 6.14 on", BOOTED),
    quirk("igb", "ssh", When::Always, REOPENS, "drivers/net/ethernet/intel/igb/igb_main.c, igb_xdp_setup"),
    quirk("igc", "ssh", When::Always, REOPENS, "drivers/net/ethernet/intel/igc/igc_xdp.c, igc_xdp_set_prog"),
    quirk(
        "igc",
        "mtu",
        When::Always,
        "takes no jumbo frames with XDP",
        "drivers/net/ethernet/intel/igc/igc_xdp.c, igc_xdp_set_prog",
    ),
    quirk(
        "mlx5_core",
        "lro",
        When::Always,
        "refuses XDP while LRO is on",
        "drivers/net/ethernet/mellanox/mlx5/core/en_main.c, mlx5e_xdp_allowed",
    ),
    quirk(
        "mlx5_core",
        "trial-zero-copy",
        When::Before(6, 1),
        "numbers the queues for zero-copy behind the ordinary ones: as many again, from the number of channels on",
        "commit 3db4c85cde7a (net/mlx5e: xsk: Use queue indices starting from 0 for XSK queues)",
    ),
    quirk(
        "ena",
        "channels",
        When::Always,
        "takes XDP with at most half of its channels: each needs a second one to send by",
        "drivers/net/ethernet/amazon/ena/ena_xdp.h, ena_xdp_legal_queue_count",
    ),
    quirk(
        "ena",
        "mtu",
        When::Jumbo,
        "takes XDP up to MTU 3498, and clouds set 9001",
        "drivers/net/ethernet/amazon/ena/ena_xdp.h, ENA_XDP_MAX_MTU",
    ),
    quirk(
        "gve",
        "channels",
        When::Always,
        "takes XDP with as many queues to send as to receive, and at most half of those it has",
        "drivers/net/ethernet/google/gve/gve_main.c, verify_xdp_configuration",
    ),
    quirk(
        "gve",
        "lro",
        When::Always,
        "refuses XDP while LRO is on",
        "drivers/net/ethernet/google/gve/gve_main.c, verify_xdp_configuration",
    ),
    quirk(
        "bnxt_en",
        "channels",
        When::Always,
        "takes XDP on combined channels only, and needs a spare transmit ring for each",
        "drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c, bnxt_xdp_set",
    ),
    quirk(
        "bnxt_en",
        "ssh",
        When::Always,
        REOPENS,
        "drivers/net/ethernet/broadcom/bnxt/bnxt_xdp.c, bnxt_xdp_set",
    ),
    quirk(
        "vmxnet3",
        "lro",
        When::Always,
        "turns LRO off by itself when a program is attached",
        "drivers/net/vmxnet3/vmxnet3_xdp.c, vmxnet3_xdp_set",
    ),
    quirk("vmxnet3", "xdp-features", When::Before(6, 6), "has XDP from Linux 6.6 on", BOOTED),
    quirk("vmxnet3", "ssh", When::Always, REOPENS, "drivers/net/vmxnet3/vmxnet3_xdp.c, vmxnet3_xdp_set"),
    quirk(
        "hv_netvsc",
        "lro",
        When::Always,
        "refuses XDP while LRO is on",
        "drivers/net/hyperv/netvsc_bpf.c, netvsc_xdp_set",
    ),
    quirk(
        "hv_netvsc",
        "master",
        When::Always,
        "hands its program on to the virtual function below it",
        "drivers/net/hyperv/netvsc_bpf.c, netvsc_vf_setxdp",
    ),
    quirk("e1000e", "xdp-features", When::Always, "has no XDP in the driver on any kernel up to 7.2", BOOTED),
];

/// Those of this check and this driver that apply here.
pub(super) fn of(check: &'static str, host: &Host, nic: &Nic) -> Vec<Note> {
    let version = kernel::parsed(&kernel::release(&host.files));
    let applies = |quirk: &&Quirk| {
        quirk.check == check
            && quirk.driver == nic.driver()
            && match quirk.when {
                When::Always => true,
                When::Before(major, minor) => version.is_some_and(|version| version < (major, minor)),
                When::FewSpare => nic.spare_channels() < host.plan.cpus.len() as u32,
                When::Cpus(count) => host.plan.cpus.len() > count,
                When::Jumbo => nic.link.mtu > 1500,
            }
    };
    QUIRKS.iter().filter(applies).map(|quirk| quirk.note).collect()
}

/// The largest MTU that the driver takes with XDP of one buffer a packet, where it is less than a page's.
pub(super) fn mtu_max(driver: &str) -> Option<u32> {
    match driver {
        // igc_xdp_set_prog: ETH_DATA_LEN.
        "igc" => Some(1500),
        // ENA_XDP_MAX_MTU: a page less Ethernet with a tag and checksum, headroom, and the skb's tail.
        "ena" => Some(4096 - 14 - 4 - 4 - 256 - 320),
        // verify_xdp_configuration: GVE_DEFAULT_RX_BUFFER_SIZE less Ethernet and GVE_RX_PAD.
        "gve" => Some(2048 - 14 - 2),
        // 2000 was refused on 6.12 and 7.2: see xsk's attach.rs.
        "vmxnet3" => Some(1500),
        _ => None,
    }
}

/// The most channels that the driver takes with XDP, of `max`.
pub(super) fn channels_max(driver: &str, max: u32) -> u32 {
    match driver {
        "ena" | "gve" => (max / 2).max(1),
        _ => max,
    }
}

/// Drivers that leave a queue alone when a buffer pool is bound to it while no program runs: they look for one first
/// (`i40e_xsk_pool_enable`, `ice_xsk_pool_setup`, `ixgbe_xsk_pool_enable`, `igc_xdp_enable_pool`,
/// `mlx5e_xsk_enable_locked`). Others may pause it, as virtio_net does.
pub(super) fn binds_in_peace(driver: &str) -> bool {
    ["i40e", "ice", "ixgbe", "igc", "mlx5_core"].contains(&driver)
}

#[cfg(test)]
mod tests {
    //! Goal: each row belongs to a check there is, and says where it comes from.
    use super::*;

    #[test]
    fn rows_name_checks_and_sources() {
        for Quirk { driver, check, note, .. } in QUIRKS {
            assert!(super::super::CHECKS.contains(check), "{driver}: {check}");
            let known = ["drivers/net/", "commit ", "booted: "];
            assert!(known.iter().any(|start| note.source.starts_with(start)), "{driver}: {}", note.source);
            assert!(!note.text.is_empty());
        }
    }

    #[test]
    fn limits_of_drivers() {
        assert_eq!(mtu_max("ena"), Some(3498));
        assert_eq!(mtu_max("veth"), None);
        assert_eq!(channels_max("ena", 8), 4);
        assert_eq!(channels_max("gve", 1), 1);
        assert_eq!(channels_max("ice", 8), 8);
        assert!(binds_in_peace("ice") && !binds_in_peace("virtio_net"));
    }
}
