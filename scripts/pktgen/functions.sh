# What the scripts of this folder share. Sourced, never run; a script sets its defaults, defines what is its own, and
# calls `pktgen_main "$@"`:
#
#   script_letters       its letters beyond the common ones, as getopts wants them
#   script_option L V    takes one of those letters
#   script_check         looks at all options together; may call `usage_error`
#   script_device DEV    writes what is its own to a device of pktgen: `send "$DEV" "parameter value"`
#   script_beam          adds what is its own to `beam_words`, the flags of `beam pktgen`
#   script_payload       what only `beam pktgen` can put into packets; empty: the kernel's pktgen will do
#
# Two generators, the same letters: the kernel's pktgen where it is there or can be loaded, else `beam pktgen`, which is
# BEAM_BIN, or target/release/beam of this checkout, or beam in the PATH. Which one it is and why is printed.
#
# Needs bash, flock, awk, and ip for what isn't given; busybox's awk and ip will do. The letters are those of the kernel's
# samples.
#
# How a run of the kernel's goes: every command is one write(2) to a file in /proc/net/pktgen, whose errno *and* whose `Result:` line are
# looked at, since pktgen reports some refusals by one of them only. `start` blocks in the kernel until all threads are
# done; a signal ends it there and stops the threads, also SIGKILL. What was sent is read from the devices' files.

# Only tests set it.
readonly proc=${BEAM_PKTGEN_PROC:-/proc/net/pktgen}
readonly exit_usage=2 exit_unfit=4
readonly name=${0##*/}

interface='' destination='' mac='' ports='443' size='' threads=1 first_thread=0 clones=0 count=100000 burst=1 delay_ns=0
ipv6=0 verbose=0 json=0
# Extra bytes of a frame for VLAN tags. The largest frame, where that isn't -s.
tag_bytes=0 largest='' size_given=''
declare -a devices=() prefix=()
interrupted='' owns_pktgen=0 why_beam=''

script_letters='' script_payload=''
declare -a beam_words=()
script_option() { :; }
script_check() { :; }
script_device() { :; }
script_beam() { :; }

say() { printf '%s: %s\n' "$name" "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

usage_error() {
    say "error: $*; see: $name -h"
    exit "$exit_usage"
}

unfit() {
    say "error: $*"
    exit "$exit_unfit"
}

# Prints the comment at the head of the script, then the letters that all scripts have.
usage() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
    cat <<EOF

  -i IF        interface to send from (needed)
  -d IP[/LEN]  destination, or a prefix to take random ones from (needed)
  -m MAC       destination's MAC address (default: what the neighbour table has for the destination)
  -p P[-P]     destination port, or a range to take random ones from (default 443)
  -s BYTES     frame size without the four bytes of its check sequence (default: the smallest, 60 for IPv4)
  -n COUNT     packets of each thread; 0: until a signal comes (default 100000)
  -t THREADS   threads, one to a CPU and transmit queue (default 1)
  -f FIRST     CPU of the first thread (default 0)
  -c CLONES    times that one packet is sent before a new one is made (default 0: once, as 1 does)
  -b BURST     copies of a packet handed to the driver at once (default 1); a burst is sent whole, beyond COUNT too
  -w NS        time from one packet to the next, of each thread (default 0: as fast as it goes)
  -6           IPv6
  -v, -x       say each command; trace the shell
  -j           print one JSON object
EOF
}

# number LETTER VARIABLE MIN MAX: checks it, and leaves it without leading zeroes, which bash would take for octal.
number() {
    local -n number_=$2
    [[ $number_ =~ ^[0-9]{1,10}$ ]] && ((10#$number_ >= $3 && 10#$number_ <= $4)) ||
        usage_error "-$1 wants a number from $3 to $4, not '$number_'"
    number_=$((10#$number_))
}

parse() {
    local letter OPTIND=1
    while getopts ":i:d:m:p:s:n:t:f:c:b:w:6vxjh$script_letters" letter; do
        case $letter in
        i) interface=$OPTARG ;;
        d) destination=$OPTARG ;;
        m) mac=$OPTARG ;;
        p) ports=$OPTARG ;;
        s) size=$OPTARG ;;
        n) count=$OPTARG ;;
        t) threads=$OPTARG ;;
        f) first_thread=$OPTARG ;;
        c) clones=$OPTARG ;;
        b) burst=$OPTARG ;;
        w) delay_ns=$OPTARG ;;
        6) ipv6=1 ;;
        v) verbose=1 ;;
        x) set -x ;;
        j) json=1 ;;
        h)
            usage
            exit 0
            ;;
        :) usage_error "-$OPTARG wants a value" ;;
        '?') usage_error "unknown option -$OPTARG" ;;
        *) script_option "$letter" "$OPTARG" ;;
        esac
    done
    shift $((OPTIND - 1))
    (($# == 0)) || usage_error "'$1' is one word too many"
}

check() {
    [[ -n $interface ]] || usage_error "-i is needed: the interface to send from"
    # A name goes into paths and commands: what the kernel allows, without what would change their meaning.
    [[ $interface =~ ^[A-Za-z0-9_.:-]{1,15}$ && $interface != .* ]] || usage_error "-i: '$interface' names no interface"
    [[ -n $destination ]] || usage_error "-d is needed: the address to send to"
    [[ $mac =~ ^(([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2})?$ ]] || usage_error "-m wants a MAC address, not '$mac'"
    number n count 0 9999999999
    number t threads 1 1024
    number f first_thread 0 8191
    number c clones 0 1000000000
    number b burst 1 1024
    # pktgen takes 2147483647 for "never".
    number w delay_ns 0 2147483646
    check_ports
    script_check
    local smallest=$(((ipv6 ? 78 : 58) + tag_bytes))
    ((smallest >= 60)) || smallest=60
    size_given=$size
    size=${size:-$smallest}
    # pktgen silently sends more than asked for where its own 16 bytes don't fit.
    number s size "$smallest" 65535
    if ((ipv6)); then check_prefix6; else check_prefix4; fi
}

check_ports() {
    local low=${ports%-*} high=${ports#*-}
    number p low 1 65535
    ports=$low
    [[ $low != "$high" ]] || return 0
    # The kernel's upper end is exclusive and has 16 bits.
    [[ $high =~ ^0*"$low"$ ]] || number p high "$((low + 1))" 65534
    ports=$low-$high
}

# Leaves in `prefix` the commands that set the destination.
check_prefix4() {
    local address=${destination%/*} length=32 octet value=0
    [[ $destination != */* ]] || length=${destination#*/}
    [[ $address =~ ^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})$ ]] ||
        usage_error "-d wants an IPv4 address (or -6 and an IPv6 address), not '$address'"
    for octet in "${BASH_REMATCH[@]:1}"; do
        ((10#$octet <= 255)) || usage_error "-d wants an IPv4 address, not '$address'"
        value=$((value << 8 | 10#$octet))
    done
    [[ $length =~ ^[0-9]{1,2}$ ]] && ((10#$length >= 8 && 10#$length <= 32)) ||
        usage_error "-d wants a prefix length from 8 to 32, not '$length'"
    if ((10#$length == 32)); then
        prefix=("dst_min $(dotted "$value")")
        return
    fi
    local hosts=$(((1 << (32 - 10#$length)) - 1))
    # The upper end is exclusive. Of a /31 both addresses are hosts; else the first and the last are not.
    local low=$((value & ~hosts)) high=$(((value | hosts) + 1))
    ((hosts == 1)) || low=$((low + 1)) high=$((high - 1))
    prefix=("dst_min $(dotted "$low")" "dst_max $(dotted "$high")" "flag IPDST_RND")
}

dotted() { printf '%d.%d.%d.%d' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)); }

check_prefix6() {
    local address=${destination%/*} length=128 groups
    [[ $destination != */* ]] || length=${destination#*/}
    groups=$(groups6 "$address") || usage_error "-6 -d wants an IPv6 address, not '$address'"
    [[ $length =~ ^[0-9]{1,3}$ ]] && ((10#$length >= 8 && 10#$length <= 128)) ||
        usage_error "-d wants a prefix length from 8 to 128, not '$length'"
    if ((10#$length == 128)); then
        prefix=("dst6 $address")
        return
    fi
    local group index=0 hosts low='' high=''
    for group in $groups; do
        hosts=$((10#$length - 16 * index))
        hosts=$((hosts >= 16 ? 0 : hosts <= 0 ? 65535 : 65535 >> hosts))
        low+=$(printf ':%x' $((group & ~hosts)))
        high+=$(printf ':%x' $((group | hosts)))
        index=$((index + 1))
    done
    # pktgen sends to (random OR low) AND high: every address of the prefix.
    prefix=("dst6_min ${low#:}" "dst6_max ${high#:}")
}

# The eight groups of an IPv6 address as decimal numbers; fails if it is none.
groups6() {
    local head=$1 tail='' gap=0 group out=''
    local -a left right
    [[ $1 =~ ^[0-9a-fA-F:]{2,39}$ && $1 != *:::* && $1 != *::*::* ]] || return 1
    if [[ $1 == *::* ]]; then
        head=${1%%::*} tail=${1#*::} gap=1
    fi
    [[ $head != :* && $head != *: && $tail != :* && $tail != *: ]] || return 1
    IFS=: read -r -a left <<<"$head"
    IFS=: read -r -a right <<<"$tail"
    local missing=$((8 - ${#left[@]} - ${#right[@]}))
    ((gap ? missing >= 1 : missing == 0)) || return 1
    while ((missing-- > 0)); do left+=(0); done
    for group in "${left[@]}" "${right[@]}"; do
        [[ $group =~ ^[0-9a-fA-F]{1,4}$ ]] || return 1
        out+=" $((16#$group))"
    done
    echo "$out"
}

# Leaves in `why_beam` why `beam pktgen` has to send; empty where the kernel's pktgen does.
choose() {
    local complaint=''
    [[ $(id -u) -eq 0 ]] || unfit "pktgen needs root; run: sudo $name ..."
    if [[ -n $script_payload ]]; then
        why_beam="the kernel's pktgen can't make $script_payload"
    elif [[ ! -e $proc/pgctrl ]]; then
        complaint=$(modprobe pktgen 2>&1) || true
        [[ -e $proc/pgctrl ]] || why_beam="$proc is not there, and loading the module failed: ${complaint:-modprobe said nothing}"
    fi
}

# Prints the beam that sends; fails with why there is none.
beam_program() {
    local built=$(dirname "${BASH_SOURCE[0]}")/../../target/release/beam
    if [[ -n ${BEAM_BIN:-} ]]; then
        command -v -- "$BEAM_BIN" || { echo "BEAM_BIN=$BEAM_BIN can't be run" && return 1; }
    elif [[ -x $built ]]; then
        realpath "$built"
    else
        command -v beam || { echo "there is no beam in target/release nor in the PATH" && return 1; }
    fi
}

# Becomes `beam pktgen`: signals, exit code and output are its own.
run_beam() {
    local beam
    beam=$(beam_program) || unfit "$why_beam. Instead of it 'beam pktgen' could send, but $beam. Build one: cargo build" \
        "--release -p beam; or boot a kernel with CONFIG_NET_PKTGEN, which this one ($(uname -r)) needs (Debian's stock" \
        "kernels have it; scripts/kernels boots some)"
    beam_words+=(-i "$interface" -d "$destination" -p "$ports" -n "$count" -t "$threads" -f "$first_thread" -w "$delay_ns")
    beam_words+=(--script "$name")
    [[ -z $mac ]] || beam_words+=(-m "$mac")
    [[ -z $size_given ]] || beam_words+=(-s "$size")
    ((clones == 0)) || beam_words+=(-c "$clones")
    ((burst == 1)) || beam_words+=(-b "$burst")
    ((!ipv6)) || beam_words+=(-6)
    ((!verbose)) || beam_words+=(-v)
    ((!json)) || beam_words+=(-j)
    script_beam
    say "drives 'beam pktgen' ($beam), because $why_beam"
    exec "$beam" pktgen "${beam_words[@]}"
}

# Makes sure that pktgen is ours to use, and idle.
prepare() {
    local running
    check_mtu
    take_lock
    running=$(devices_in Running)
    [[ -z $running ]] || unfit "pktgen is busy in this network namespace, sending from $running;" \
        "wait, or stop it: echo stop > $proc/pgctrl"
    if [[ -z $mac ]]; then
        mac=$(ip neigh show to "${destination%/*}" dev "$interface" 2>/dev/null |
            awk '{ for (i = 1; i < NF; i++) if ($i == "lladdr") { print $(i + 1); exit } }') || true
        [[ -n $mac ]] || unfit "the neighbour table has no MAC address for ${destination%/*} on $interface;" \
            "ping it first, or name one with -m"
    fi
}

# pktgen hands larger frames to the driver all the same, and what comes of that is the driver's.
check_mtu() {
    local mtu most
    mtu=$(ip link show dev "$interface" 2>/dev/null |
        awk '{ for (i = 1; i < NF; i++) if ($i == "mtu") { print $(i + 1); exit } }') || true
    # Of an interface that isn't there, pktgen itself says so.
    [[ $mtu =~ ^[0-9]+$ ]] || return 0
    most=$((mtu + 14 + tag_bytes))
    ((${largest:-$size} <= most)) ||
        unfit "frames of ${largest:-$size} bytes don't pass $interface: its MTU is $mtu, so a frame may have $most" \
            "(14 of Ethernet$( ((!tag_bytes)) || echo ", $tag_bytes of VLAN tags"));" \
            "lower -s, or: ip link set dev $interface mtu $((${largest:-$size} - 14 - tag_bytes))"
}

# One network namespace has one pktgen, and `start` starts all that is configured. The lock keeps two scripts apart from
# here on, and goes with the process. It is on the namespace itself, of which there is one inode however it is reached;
# of pktgen's own files there is one for each process, as /proc/net is.
take_lock() {
    local lock
    command -v flock >/dev/null || unfit "flock is not here, and it keeps two scripts apart; install util-linux"
    exec {lock}</proc/self/ns/net
    flock -n "$lock" || unfit "another script drives pktgen in this network namespace; wait for it"
}

# The devices that the threads list behind "Running:" or "Stopped:".
devices_in() {
    cat "$proc"/kpktgend_* |
        awk -v list="$1:" '$1 == list { for (i = 2; i <= NF; i++) { printf "%s%s", space, $i; space = " " } }'
}

# The text behind "Result: " of a file of pktgen.
result_of() { awk '/^Result: / { sub(/^Result: /, ""); print; exit }' "$proc/$1"; }

# send FILE COMMAND: one command to pktgen, and what it says to it.
send() {
    local complaint result=''
    ((!verbose)) || say "$1 < $2"
    # Opened to append: a file of a test must keep what it holds, and proc files don't mind.
    if ! complaint=$({ printf '%s\n' "$2" >>"$proc/$1"; } 2>&1); then
        [[ $1 == pgctrl ]] || result=$(result_of "$1" 2>/dev/null) || true
        refused "$1" "$2" "${complaint##*: }" "$result"
    fi
    [[ $1 != pgctrl ]] || return 0
    result=$(result_of "$1")
    [[ $result == OK* ]] || refused "$1" "$2" '' "$result"
}

refused() {
    local hint=''
    [[ $2 != add_device* ]] || hint="; it must be there, be up (ip link set dev $interface up), and be in this namespace"
    [[ $2 != clone_skb* && $2 != burst* ]] || hint="; drivers that change what they send (veth) take only -c 0 -b 1"
    [[ $2 != imix_weights* ]] || hint="; kernel 5.15 or newer is needed for it"
    die "pktgen refused '$2' for $1: ${3:-no errno}, Result: ${4:-none}$hint"
}

configure() {
    local thread device command
    owns_pktgen=1
    remove_left_over
    for ((thread = first_thread; thread < first_thread + threads; thread++)); do
        [[ -e $proc/kpktgend_$thread ]] || unfit "there is no CPU $thread for a thread: lower -t or -f"
        device=$interface@$thread
        send "kpktgend_$thread" "add_device $device"
        devices+=("$device")
        send "$device" "count $count"
        send "$device" "pkt_size $size"
        send "$device" "delay $delay_ns"
        send "$device" "dst_mac $mac"
        # Each thread sends on the queue of its CPU.
        send "$device" "flag QUEUE_MAP_CPU"
        for command in "${prefix[@]}"; do send "$device" "$command"; done
        send "$device" "udp_dst_min ${ports%-*}"
        if [[ $ports == *-* ]]; then
            send "$device" "udp_dst_max $((${ports#*-} + 1))"
            send "$device" "flag UDPDST_RND"
        else
            send "$device" "udp_dst_max $ports"
        fi
        ((!ipv6)) || configure6 "$device"
        ((clones == 0)) || send "$device" "clone_skb $clones"
        ((burst == 1)) || send "$device" "burst $burst"
        script_device "$device"
    done
}

# Removes what another run left (one that was killed, say): `start` would start it too.
remove_left_over() {
    local tries=100
    [[ -n $(devices_in Stopped) ]] || return 0
    send pgctrl reset
    # It gives the threads 125 ms; a device that is added before a slow thread has removed all would go too.
    while [[ -n $(devices_in Stopped) ]]; do
        ((tries-- > 0)) || die "pktgen keeps devices of another run: $(devices_in Stopped); see the end of dmesg"
        sleep 0.1
    done
}

configure6() {
    local source
    # Over IPv6 a UDP checksum of zero is not allowed (RFC 8200 8.1); pktgen computes one when told to.
    send "$1" "flag UDPCSUM"
    # Left alone, pktgen takes the link-local address.
    source=$(ip -6 -o addr show dev "$interface" scope global 2>/dev/null |
        awk '{ sub(/\/.*/, "", $4); print $4; exit }') || true
    [[ -z $source ]] || send "$1" "src6 $source"
}

run() {
    local device unfinished
    [[ -z $interrupted ]] || return 0
    ((verbose)) && say "pgctrl < start"
    # Blocks until the threads are done, or a signal comes.
    printf 'start\n' >>"$proc/pgctrl" || [[ -n $interrupted ]] || die "pktgen refused 'start'"
    # It gives the threads 125 ms to begin and takes one that didn't for done, so each is asked.
    while :; do
        unfinished=0
        for device in "${devices[@]}"; do
            case $(result_of "$device") in
            'OK: '[0-9]*'(c'*) ;;
            'Error starting'*) die "pktgen could not start on $device: see the end of dmesg" ;;
            *) unfinished=1 ;;
            esac
        done
        ((unfinished)) || break
        [[ -z $interrupted ]] || send pgctrl stop
        sleep 0.1
    done
}

# What a device's file says: packets, errors, microseconds, and sizes as `bytes,count` each.
outcome_of() {
    awk '$1 == "pkts-sofar:" { packets = $2; errors = $4 }
        $1 == "imix_size_counts:" { for (i = 2; i <= NF; i++) sizes = sizes " " $i }
        $1 == "started:" { started = $2 + 0; stopped = $4 + 0 }
        END { printf "%s %s %.0f%s\n", packets, errors, stopped - started, sizes }' "$proc/$1"
}

# milliseconds and rates without floating point.
seconds() { printf '%d.%06d' $(($1 / 1000000)) $(($1 % 1000000)); }
per_second() { echo $(($2 > 0 ? $1 * 1000000 / $2 : 0)); }

report() {
    local device outcome packets errors time_us sizes all_packets=0 all_errors=0 all_us=0 each='' all_sizes=''
    for device in "${devices[@]}"; do
        outcome=$(outcome_of "$device")
        read -r packets errors time_us sizes <<<"$outcome"
        [[ $packets =~ ^[0-9]+$ && $errors =~ ^[0-9]+$ && $time_us =~ ^[0-9]+$ ]] || die "can't read what $proc/$device says"
        ((json)) || printf 'thread %s: %s packets, %s errors, %s s, %s packets/s\n' "${device##*@}" "$packets" "$errors" \
            "$(seconds "$time_us")" "$(per_second "$packets" "$time_us")"
        all_packets=$((all_packets + packets)) all_errors=$((all_errors + errors))
        ((time_us <= all_us)) || all_us=$time_us
        each+=",{\"thread\":${device##*@},\"packets\":$packets,\"errors\":$errors,\"seconds\":$(seconds "$time_us")}"
        all_sizes+=" $sizes"
    done
    all_sizes=$(sum_sizes "$all_sizes")
    if ((json)); then
        printf '{"script":"%s","interface":"%s","drives":"/proc/net/pktgen","kernel":"%s"' "$name" "$interface" "$(uname -r)"
        printf ',"destination":"%s","ports":"%s","frame_bytes":%s,"threads":%s' "$destination" "$ports" "$size" "$threads"
        [[ -z $all_sizes ]] || printf ',"sizes":{%s}' "$all_sizes"
        printf ',"packets":%s,"errors":%s,"seconds":%s' "$all_packets" "$all_errors" "$(seconds "$all_us")"
        printf ',"packets_per_second":%s' "$(per_second "$all_packets" "$all_us")"
        printf ',"interrupted":%s,"per_thread":[%s]}\n' "$([[ -z $interrupted ]] && echo false || echo true)" "${each#,}"
    else
        [[ -z $all_sizes ]] || printf 'frames made, by size: %s\n' "$all_sizes"
        printf 'total: %s packets, %s errors, %s s, %s packets/s\n' "$all_packets" "$all_errors" "$(seconds "$all_us")" \
            "$(per_second "$all_packets" "$all_us")"
    fi
    if [[ -z $interrupted ]] && ((all_packets < count * threads)); then
        die "$all_packets packets were sent and $((count * threads)) were asked for: the link of $interface is down," \
            "or was for a while"
    fi
}

# "60,7 590,4 60,7" to "60":14,"590":4
sum_sizes() {
    printf '%s' "$1" | awk '{
        for (i = 1; i <= NF; i++) { split($i, part, ","); if (!(part[1] in sum)) order[++n] = part[1]; sum[part[1]] += part[2] }
        for (i = 1; i <= n; i++) printf "%s\"%s\":%.0f", (i > 1 ? "," : ""), order[i], sum[order[i]] }'
}

clean_up() {
    ((owns_pktgen)) || return 0
    owns_pktgen=0
    # Whatever a signal left running ends, and the devices go, so that the next `start` sends nothing of ours.
    { printf 'stop\n' >>"$proc/pgctrl" && printf 'reset\n' >>"$proc/pgctrl"; } 2>/dev/null || true
}

pktgen_main() {
    parse "$@"
    check
    choose
    [[ -z $why_beam ]] || run_beam
    prepare
    trap 'interrupted=INT' INT
    trap 'interrupted=TERM' TERM
    trap clean_up EXIT
    say "drives the kernel's pktgen through /proc/net/pktgen: $interface to $destination ($mac), port $ports"
    configure
    run
    report
    # With -n 0 a signal is the way to end.
    case $interrupted in
    INT) ((count == 0)) || exit 130 ;;
    TERM) ((count == 0)) || exit 143 ;;
    esac
}
