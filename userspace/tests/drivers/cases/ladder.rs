//! Which modes a driver has, and what beam says where it has not.

use crate::{
    Verdict,
    bench::{Bench, Mode, beam_says},
    pair::{LIMIT, TUNNEL_PORT, words},
    rig::{Beam, GATEWAY_V4, Ns, authority},
};

/// What is taken for not fit: README, exit codes.
const PREFLIGHT: Option<i32> = Some(4);

// `--xdp auto` finds the best mode, each better one is refused with a reason, and each worse one can be had.
pub(crate) fn ladder(bench: &mut Bench) -> Verdict {
    let automatic = bench.place.gateway(GATEWAY_V4, &["--xdp", "auto", "-i", "g0", "--umem", "16"]);
    bench.assert_mode(bench.best, Ns::Gateway, &automatic);
    for why in automatic.status()["workers"][0]["xdp_why"].as_array().expect("reasons") {
        bench.fact("auto_why", why.clone());
    }
    drop(automatic);
    let mut is_there = false;
    for mode in Mode::ALL {
        is_there |= mode == bench.best;
        if is_there {
            let mut gateway = bench.gateway_in(mode, GATEWAY_V4);
            assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
            continue;
        }
        let (code, said) = beam_says(bench, Ns::Gateway, &serve(bench, mode));
        assert_eq!(code, PREFLIGHT, "{mode:?} was not refused: {said}");
        let error = said.lines().last().unwrap_or_default().to_owned();
        assert!(error.contains("g0") && error.contains("--"), "what is where, and the next flag: {error}");
        bench.fact(&format!("{}_refused", mode.name()), error);
    }
    Ok(())
}

// The MTUs that beam takes in this mode; those that it refuses it refuses with the figure that it needs.
pub(crate) fn mtu(bench: &mut Bench) -> Verdict {
    for mtu in [1280, 1500, 2000, 3000, 3498, 3818, 9000] {
        let text = mtu.to_string();
        if let Err(why) = bench.try_in(Ns::Gateway, "ip", &["link", "set", "g0", "mtu", &text]) {
            bench.fact(&format!("mtu_{mtu}"), format!("not by the driver: {why}"));
            continue;
        }
        bench.wait_for_link(Ns::Gateway);
        let args = serve(bench, bench.mode);
        let mut gateway = Beam::launch(&bench.place.rig, Ns::Gateway, "mtu", &words(&args));
        match gateway.ready_or_ended() {
            None => {
                bench.assert_mode(bench.mode, Ns::Gateway, &gateway);
                bench.fact(&format!("mtu_{mtu}"), "taken");
                assert_eq!(gateway.process.terminate(LIMIT).code(), Some(0));
            }
            Some(status) => {
                let said = gateway.process.stderr();
                let error = said.lines().last().unwrap_or_default().to_owned();
                assert_eq!(status.code(), PREFLIGHT, "MTU {mtu}: {said}");
                assert!(error.contains("MTU") && error.contains(&text), "names the MTU: {error}");
                assert!(mtu > 1500, "every driver takes {mtu}: {error}");
                bench.fact(&format!("mtu_{mtu}"), error);
            }
        }
    }
    Ok(())
}

fn serve(bench: &Bench, mode: Mode) -> Vec<String> {
    bench.place.certified_args(authority(GATEWAY_V4, TUNNEL_PORT), &mode.flags("g0"))
}
