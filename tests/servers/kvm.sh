#!/usr/bin/env bash
# A host for tests: a libvirt daemon with its QEMU driver, and a tiny guest to run on it.
#
#   tests/servers/kvm.sh start CACHE_DIR [NAME]   starts it if it is not running, prints its folder
#   tests/servers/kvm.sh stop  CACHE_DIR [NAME]   stops it, and all that it runs
#   tests/servers/kvm.sh guest CACHE_DIR [KERNEL [DRIVER …]]
#                                                 makes the guest alone, of this Debian kernel and with
#                                                 these drivers besides, and prints where its image is
#
# Each NAME is a host of its own, beside the one without; the guests are the same.
#
# CACHE_DIR keeps what takes long to make: the guests, and what libvirt found out about QEMU. The
# folder that is printed has `socket` (the daemon's), `kernel` and `initramfs` (the guest's), `image`
# (a disk that the same guest starts from), `net` (the host's network namespace), `log`, and `disks`,
# which is empty. Where there is a file `again` when the daemon dies, it is started once more. `larger` has `kernel`, `initramfs` and `image` of a second guest, of Debian's kernel for every
# machine, with file systems, SATA, an Intel card and a DHCP client, for tests that ask for it. Where there is hugetlbfs, its mount is `hugepages`. `peer` in it is a second host, with
# `socket` and `net` of its own: from one to the other there is a wire, on which the first is 10.99.0.1
# and the second 10.99.0.2, and each one's daemon listens there. Where Debian's Open vSwitch is to be had,
# the first has a bridge of it, `switch`, whose database is `switch.sock`; its programs are in `bin`.
#
# Started from the disk, the guest does what a seed of cloud-init's NoCloud source says, as far as a
# test asks: its name, its interfaces' addresses and routes, keys, and a script as userdata, once for
# each instance.
#
# The host is a set of namespaces: processes, network and mounts of its own. It has a bridge, `lab`.
# When its first process ends nothing of it is left: no guest, no tap, no mount. Guests are emulated
# (domain type `qemu`), for a machine that is itself a guest often has no KVM that works.
#
# Exit status 3 says that this machine cannot have it; the reason is on stderr.
set -euo pipefail

usage() { sed -n '2,30s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
verb=$1
mkdir -p "$2"
cache=$(cd "$2" && pwd)/kvm
mkdir -p "$cache"
case $verb in
start | stop) state=$cache/host${3:+-$3} ;;
esac
guest=$cache/guest
larger=$cache/larger
switch=$cache/switch
# Goes up with every change of how the guest is made.
recipe=4

cannot() { echo "kvm.sh: $*" >&2; exit 3; }

# The files of a Debian package, without installing it.
unpack() { # PACKAGE INTO
    (
        mkdir -p "$2.deb"
        cd "$2.deb"
        apt-get download -qq -o APT::Sandbox::User=root "$1" >&2
        for file in *.deb; do dpkg-deb -x "$file" "$2"; done
    ) || cannot "no Debian package $1 to be had"
    rm -rf "$2.deb"
}

linux=linux-image-cloud-amd64
drivers='virtio_pci virtio_blk virtio_net virtio_console button evdev vfat nls_cp437 nls_ascii'
# Programs of other packages, each as `package:file`.
programs=
# Where it looks for its disks.
disks='/dev/vd*'

# What the guest does: mounts, drivers, its agent, what its seed says, a line on the console, and then
# what it is told.
guest_init() {
    printf '#!/bin/busybox sh\ndrivers="%s"\n' "$drivers"
    cat <<'INIT'
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for driver in $drivers; do modprobe "$driver"; done
# Only now that the bus is set up: emulated processors beside one that does this end QEMU 10.0 now and then
# (iotlb_to_section: Assertion failed).
for cpu in /sys/devices/system/cpu/cpu*/online; do [ "$(cat "$cpu")" = 1 ] || echo 1 >"$cpu"; done
ip link set lo up
agent=
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = org.qemu.guest_agent.0 ] && agent=/dev/${port##*/}
done
[ -z "$agent" ] || qemu-ga --daemonize --method virtio-serial --path "$agent" --statedir /run --pidfile /run/qemu-ga.pid
# The power button: the first thing that it says turns the machine off.
for input in /sys/class/input/event*; do
    [ "$(cat "$input/device/name")" = 'Power Button' ] || continue
    (head -c 1 "/dev/input/${input##*/}" >/dev/null && sync && poweroff -f) &
done

# A document of the seed, which has one thing on each line, as `path.to.it=value`.
flatten() {
    awk '
        { line = $0; sub(/^ */, "", line); depth = (length($0) - length(line)) / 2; sub(/,$/, "", line) }
        line ~ /^[]}]/ || depth == 0 { next }
        {
            value = line
            if (line ~ /^"[^"]*": /) {
                match(line, /^"[^"]*": /)
                key[depth] = substr(line, 2, RLENGTH - 4)
                value = substr(line, RLENGTH + 1)
            } else {
                key[depth] = count[depth]++
            }
            count[depth + 1] = 0
            if (value ~ /^[[{]/) next
            gsub(/^"|"$/, "", value)
            path = key[1]
            for (at = 2; at <= depth; at++) path = path "." key[at]
            print path "=" value
        }
    ' "$1"
}
value() { sed -n "s|^$2=||p" "$1"; }

set_up_interfaces() {
    local nic card
    for nic in $(sed -n 's/^ethernets\.\([a-z0-9]*\)\..*/\1/p' /run/network | sort -u); do
        card=$(grep -l "^$(value /run/network "ethernets.$nic.match.macaddress")$" /sys/class/net/eth*/address)
        card=${card%/address}
        card=${card##*/}
        [ -n "$card" ] || continue
        local mtu address at to via
        mtu=$(value /run/network "ethernets.$nic.mtu")
        [ -z "$mtu" ] || ip link set "$card" mtu "$mtu"
        ip link set "$card" up
        for address in $(value /run/network "ethernets.$nic.addresses.[0-9]*"); do
            ip address add "$address" dev "$card"
        done
        for at in $(sed -n "s/^ethernets\.$nic\.routes\.\([0-9]*\)\.via=.*/\1/p" /run/network); do
            to=$(value /run/network "ethernets.$nic.routes.$at.to")
            via=$(value /run/network "ethernets.$nic.routes.$at.via")
            ip route add "$to" via "$via" dev "$card" onlink
        done
    done
}

# The disk it was started from keeps which instances it has been.
do_as_seeded() {
    local disk instance
    mkdir -p /seed /state
    for disk in /dev/vd*; do
        mount -t vfat -o ro "$disk" /seed 2>/dev/null || continue
        [ -f /seed/meta-data ] && break
        umount /seed
    done
    [ -f /seed/meta-data ] || return
    for disk in /dev/vd*; do
        mount -t vfat -o sync "$disk" /state 2>/dev/null || continue
        [ -f /state/ldlinux.sys ] && break
        umount /state
    done
    flatten /seed/meta-data >/run/meta
    flatten /seed/network-config >/run/network
    hostname "$(value /run/meta local-hostname)"
    value /run/meta 'public-keys.[0-9]*' >/run/authorized-keys
    set_up_interfaces
    instance=$(value /run/meta instance-id)
    if [ ! -e "/state/instances/$instance" ]; then
        mkdir -p "/state/instances/$instance"
        cp /seed/user-data /run/user-data
        chmod +x /run/user-data
        case $(head -c 2 /run/user-data) in '#!') /run/user-data >/dev/console 2>&1 ;; esac
    fi
    echo "$instance" >/run/seeded
}
do_as_seeded
echo "GUEST IS UP: $(sed 's/.*\(guest=[a-z]*\).*/\1/' /proc/cmdline)" >/dev/console
while :; do wait; sleep 3600; done
INIT
}

# Kernel, initramfs and command line as one program that UEFI starts.
make_efi_program() { # FILE
    local boot=$guest/boot-efi
    command -v objcopy >/dev/null || cannot "no objcopy here (package binutils)"
    unpack systemd-boot-efi "$boot"
    printf '%s guest=disk' "$command_line" >"$boot/cmdline"
    objcopy \
        --add-section .cmdline="$boot/cmdline" --change-section-vma .cmdline=0x30000 \
        --add-section .linux="$guest/kernel" --change-section-vma .linux=0x2000000 \
        --add-section .initrd="$guest/initramfs" --change-section-vma .initrd=0x3000000 \
        "$boot/usr/lib/systemd/boot/efi/linuxx64.efi.stub" "$1" || cannot "no program for UEFI can be made"
    rm -rf "$boot"
}

command_line='console=ttyS0 quiet panic=-1 mitigations=off maxcpus=1'

# A disk without partitions that a BIOS starts, and UEFI as well.
make_image() { # FILE
    local boot=$guest/boot
    command -v mcopy >/dev/null || cannot "no mcopy here (package mtools)"
    unpack syslinux "$boot"
    truncate -s 48M "$1"
    mformat -i "$1" -T $((48 << 11)) -h 64 -s 32 -v GUEST ::
    printf '%s\n' 'DEFAULT guest' 'LABEL guest' 'LINUX kernel' 'INITRD initramfs' \
        "APPEND $command_line guest=disk" >"$guest/syslinux.cfg"
    mcopy -i "$1" "$guest/kernel" "$guest/initramfs" "$guest/syslinux.cfg" ::
    make_efi_program "$guest/BOOTX64.EFI"
    mmd -i "$1" ::EFI ::EFI/BOOT
    mcopy -i "$1" "$guest/BOOTX64.EFI" ::EFI/BOOT
    "$boot/usr/bin/syslinux" --install "$1" || cannot "syslinux does not install"
    rm -rf "$boot" "$guest/syslinux.cfg" "$guest/BOOTX64.EFI"
}

make_guest() {
    local stamp=$recipe
    [ "$guest" != "$larger" ] || stamp="$recipe $linux $drivers $programs $disks"
    [ "$(cat "$guest/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    echo "kvm.sh: making the guest" >&2
    rm -rf "$guest"
    mkdir -p "$guest"
    command -v apt-get >/dev/null || cannot "the guest is made of Debian packages, and there is no apt-get"
    apt-get -qq update >&2 || true
    local package version root=$guest/root kernel=$guest/linux box=$guest/busybox agent=$guest/agent
    package=$(apt-cache depends "$linux" 2>/dev/null | awk '/Depends: linux-image-/ {print $2; exit}')
    [ -n "$package" ] || cannot "no Debian package $linux to be had"
    version=${package#linux-image-}
    unpack "$package" "$kernel"
    unpack busybox-static "$box"
    unpack qemu-guest-agent "$agent"
    mkdir -p "$root"/{bin,dev,proc,run,sys,tmp,lib/modules}
    cp "$box/bin/busybox" "$root/bin/"
    cp "$agent/usr/sbin/qemu-ga" "$root/bin/"
    local program library
    for program in $programs; do
        unpack "${program%%:*}" "$guest/program"
        cp "$guest/program/${program#*:}" "$root/bin/"
        rm -rf "$guest/program"
    done
    find "$root/bin" -type f ! -name busybox -exec ldd {} + >"$guest/libraries"
    ! grep -q 'not found' "$guest/libraries" || cannot "the guest's programs miss: $(grep 'not found' "$guest/libraries")"
    for library in $(grep -v ':$' "$guest/libraries" | grep -o '/[^ ]*' | sort -u); do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
    # What the agent runs to shut down.
    mkdir "$root/sbin"
    printf '#!/bin/sh\nsync\nexec /bin/poweroff -f\n' >"$root/sbin/shutdown"
    guest_init | sed "s|/dev/vd\*|$disks|" >"$root/init"
    chmod +x "$root/sbin/shutdown" "$root/init"
    # The drivers, and whatever they need: which they are is worked out among all of them.
    "$root/bin/busybox" depmod -b "$kernel" "$version"
    local file modules=lib/modules/$version
    for driver in $drivers; do
        awk -v driver="/$driver.ko" 'index($1, driver ":") {gsub(":", ""); print; exit}' "$kernel/$modules/modules.dep"
    done | tr ' ' '\n' | sort -u | while read -r file; do
        [ -n "$file" ] || continue
        mkdir -p "$root/$modules/${file%/*}"
        cp "$kernel/$modules/$file" "$root/$modules/$file"
    done
    "$root/bin/busybox" depmod -b "$root" "$version"
    cp "$kernel/boot/vmlinuz-$version" "$guest/kernel"
    (cd "$root" && find . | bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$guest/initramfs"
    make_image "$guest/image"
    [ "$guest" = "$larger" ] || unpack ovmf "$guest/firmware"
    rm -rf "$root" "$kernel" "$box" "$agent" "$guest/libraries"
    printf %s "$stamp" >"$guest/stamp"
}

# The second guest, which has what a few tests ask for, and wants more memory for it.
make_larger_guest() {
    (
        guest=$larger
        linux=linux-image-amd64
        drivers+=' crc32c_generic ext4 ahci sd_mod e1000e'
        programs=dhcpcd-base:usr/sbin/dhcpcd
        disks='/dev/[sv]d*'
        make_guest
    )
}

# Open vSwitch, without installing it: its programs with the libraries that they miss here. Without its
# datapath in the kernel frames pass through its daemon.
make_switch() {
    # What tells flows came later than the rest.
    [ ! -x "$switch/bin/ovs-ofctl" ] || return 0
    rm -rf "$switch"
    local package part=$switch.part
    rm -rf "$part"
    for package in openvswitch-switch openvswitch-common libxdp1; do
        (unpack "$package" "$part") || return 0
    done
    mkdir "$part/bin"
    for program in usr/lib/openvswitch-switch/ovs-vswitchd usr/sbin/ovsdb-server usr/bin/ovsdb-tool usr/bin/ovs-vsctl \
        usr/bin/ovs-ofctl; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$switch/usr/lib/$(uname -m)-linux-gnu" \
            "$switch/$program" >"$part/bin/${program##*/}"
        chmod +x "$part/bin/${program##*/}"
    done
    mv "$part" "$switch"
}

start_switch() { # FOLDER
    local folder=$1 own=$1/own/switch
    [ -x "$switch/bin/ovs-vswitchd" ] || return 0
    mkdir -p "$own"
    export OVS_RUNDIR=$own OVS_LOGDIR=$own OVS_DBDIR=$own
    (
        PATH=$switch/bin:$PATH
        ovsdb-tool create "$own/conf.db" "$switch/usr/share/openvswitch/vswitch.ovsschema" &&
            ovsdb-server "$own/conf.db" --remote="punix:$own/db.sock" --detach --pidfile --no-chdir &&
            ovs-vsctl --db="unix:$own/db.sock" --no-wait init &&
            ovs-vswitchd "unix:$own/db.sock" --detach --pidfile --no-chdir &&
            ovs-vsctl --timeout=20 --db="unix:$own/db.sock" add-br switch -- set Bridge switch datapath_type=netdev &&
            ln -s own/switch/db.sock "$folder/switch.sock"
    ) || echo "no Open vSwitch"
}

# Only the process that was started counts: the pid may be somebody else's by now.
alive() {
    [ -s "$state.pid" ] && [ -s "$state.folder" ] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$state.pid")/cmdline" | grep -qF "$(cat "$state.folder")"
}

answers() {
    timeout 20 virsh -q -c "qemu+unix:///system?socket=$1/socket" version >/dev/null 2>&1
}

# The second host, inside of the first: with that it ends.
start_peer() { # FOLDER
    local peer
    mkdir -p "$1"
    unshare --mount --net --uts --pid --fork --mount-proc --kill-child --propagation private \
        "$BASH" "$0" peer "${cache%/kvm}" "$1" >"$1/host.log" 2>&1 </dev/null &
    peer=$!
    while [ "$(readlink "/proc/$peer/ns/net")" = "$(readlink /proc/self/ns/net)" ]; do
        kill -0 "$peer" && sleep 0.05
    done
    ip link add wire type veth peer name wire netns "$peer"
    ip address add 10.99.0.1/24 dev wire
    ip link set wire up
}

# A host's first process. libvirt's folders are others than the machine's.
host() { # FOLDER NUMBER
    local folder=$1 number=$2 place child
    for place in etc/libvirt var/lib/libvirt var/log/libvirt var/cache/libvirt run/libvirt; do
        mkdir -p "$folder/own/$place"
        [ -d "/$place" ] || { mkdir "/$place" && echo "/$place" >>"$folder/made"; }
        mount --bind "$folder/own/$place" "/$place"
    done
    # The firmware of guests that start by UEFI.
    for place in usr/share/OVMF usr/share/qemu/firmware; do
        [ -d "/$place" ] || { mkdir -p "/$place" && echo "/$place" >>"$folder/made"; }
        mount --bind "$guest/firmware/$place" "/$place"
    done
    # In memory, as on every host.
    mount -t tmpfs tmpfs /run/libvirt
    # Before libvirt begins, which looks only then whether there may be huge pages.
    mkdir "$folder/hugepages"
    mount -t hugetlbfs hugetlbfs "$folder/hugepages" || rmdir "$folder/hugepages"
    mkdir -p "$cache/libvirt"
    mount --bind "$cache/libvirt" /var/cache/libvirt
    # Debian's libvirt wants to know a user that another package makes.
    if ! grep -q '^libvirt-qemu:' /etc/passwd; then
        cp /etc/passwd /etc/group "$folder/own/"
        echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>"$folder/own/passwd"
        echo 'libvirt-qemu:x:64055:' >>"$folder/own/group"
        mount --bind "$folder/own/passwd" /etc/passwd
        mount --bind "$folder/own/group" /etc/group
    fi
    # None of the drivers that look around on the machine.
    mkdir "$folder/own/drivers"
    ln -s /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so "$folder/own/drivers/"
    ip link set lo up
    ip link add lab type bridge
    ip link set lab up
    if [ "$number" = 1 ]; then
        start_switch "$folder"
        start_peer "$folder/peer"
    else
        hostname kvm-2
        until ip link set wire up 2>/dev/null; do sleep 0.05; done
        ip address add 10.99.0.2/24 dev wire
    fi
    # Nothing of the machine's: no user of its own, no cgroups, no security module.
    cat >/etc/libvirt/qemu.conf <<'CONF'
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
CONF
    [ ! -d "$folder/hugepages" ] || echo "hugetlbfs_mount = \"$folder/hugepages\"" >>/etc/libvirt/qemu.conf
    cat >"$folder/libvirtd.conf" <<CONF
unix_sock_dir = "$folder/sockets"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "6b1d53a4-2f0e-4c52-9a4e-0c8f4a1d7e0$number"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
listen_addr = "10.99.0.$number"
log_outputs = "3:file:$folder/log"
CONF
    mkdir -p "$folder/sockets"
    ln -s sockets/libvirt-sock "$folder/socket"
    while :; do
        LIBVIRT_DRIVER_DIR=$folder/own/drivers PATH=$PATH:/usr/sbin \
            libvirtd --listen --config "$folder/libvirtd.conf" --pid-file "$folder/pid" &
        child=$!
        # As the first process it has to see off all that end.
        while kill -0 "$child" 2>/dev/null; do wait -n || true; done
        # With the daemon the host ends, but where a test has said that it comes back.
        rm "$folder/again" 2>/dev/null || break
    done
}

start() {
    if alive && answers "$(cat "$state.folder")"; then
        cat "$state.folder"
        return
    fi
    stop
    [ "$(id -u)" = 0 ] || cannot "namespaces and bridges need root"
    for program in qemu-system-x86_64 qemu-img virsh unshare ip; do
        command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || cannot "no $program here"
    done
    ls /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so >/dev/null 2>&1 ||
        cannot "libvirt has no driver for QEMU here (package libvirt-daemon-driver-qemu)"
    unshare --mount --net --pid --fork true 2>/dev/null || cannot "no namespaces may be made here"
    make_guest
    make_larger_guest
    make_switch
    # A short path, for a socket's may not be long.
    local folder
    folder=$(mktemp -d "${TMPDIR:-/tmp}/skyledger-kvm.XXXXXX")
    mkdir "$folder/disks"
    ln -s "$guest/kernel" "$guest/initramfs" "$guest/image" "$larger" "$folder/"
    [ ! -d "$switch/bin" ] || ln -s "$switch/bin" "$folder/bin"
    echo "$folder" >"$state.folder"
    unshare --mount --net --pid --fork --mount-proc --kill-child --propagation private \
        "$BASH" "$0" host "${cache%/kvm}" "$folder" >"$folder/host.log" 2>&1 </dev/null &
    echo $! >"$state.pid"
    for _ in $(seq 300); do
        kill -0 "$(cat "$state.pid")" 2>/dev/null || break
        if [ -S "$folder/socket" ] && answers "$folder"; then
            local first
            first=$(tr -d ' ' <"/proc/$(cat "$state.pid")/task/$(cat "$state.pid")/children")
            ln -s "/proc/$first/ns/net" "$folder/net"
            for first in $(grep -lsF "$folder/peer" /proc/[0-9]*/cmdline); do
                first=${first%/cmdline}
                [ "$(cat "$first/comm" 2>/dev/null)" != bash ] || ln -sfn "$first/ns/net" "$folder/peer/net"
            done
            echo "$folder"
            return
        fi
        sleep 0.1
    done
    echo "the host did not start; its logs:" >&2
    tail -n 20 "$folder/host.log" "$folder/log" >&2 || true
    stop
    exit 1
}

stop() {
    if alive; then
        local pid first
        pid=$(cat "$state.pid")
        first=$(cat "/proc/$pid/task/$pid/children" | tr -d ' ')
        kill -KILL "$pid"
        # The kernel lets the first process go when all others are gone.
        for _ in $(seq 200); do
            [ -n "$first" ] && kill -0 "$first" 2>/dev/null || break
            sleep 0.05
        done
    fi
    if [ -s "$state.folder" ]; then
        local folder place
        folder=$(cat "$state.folder")
        for place in $(cat "$folder/made" 2>/dev/null); do rmdir "$place" 2>/dev/null || true; done
        rm -rf "$folder"
    fi
    rm -f "$state.pid" "$state.folder"
}

case $verb in
start) start ;;
stop) stop ;;
guest)
    linux=${3:-$linux}
    drivers+=" ${*:4}"
    make_guest
    echo "$guest/image"
    ;;
host) host "$3" 1 ;;
peer) host "$3" 2 ;;
*) usage ;;
esac
