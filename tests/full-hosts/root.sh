#!/usr/bin/env bash
# What a whole Linux host of tests starts from: a root file system of Debian with libvirt, QEMU and LVM with
# its lock managers, a kernel with all its modules, a driver of mediated devices, and a tiny guest that has a
# driver for virtual functions.
#
#   tests/full-hosts/root.sh CACHE_DIR     makes what is missing, prints its folder
#
# The folder has `root.raw` (a file system without partitions), `kernel`, `initramfs`, and `guest` (the image of
# the tiny guest). It takes about 2 GB and is kept: making it takes a few minutes. As root, on a Debian of the
# release that is used: the agent that was built here runs there.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)/full-hosts
mkdir -p "$cache"
# Goes up with every change of how it is made.
recipe=2

packages=(
    bridge-utils ethtool iproute2 kmod nftables pciutils procps udev usbutils util-linux-extra uuid-runtime
    libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system
    nfs-common nfs-kernel-server
    lvm2 lvm2-lockd sanlock
    openvswitch-switch
    qemu-guest-agent qemu-system-x86 qemu-utils
)
# What no host of these tests has.
needless=(drivers/gpu drivers/media drivers/net/wireless drivers/infiniband drivers/iio drivers/staging
    drivers/hwmon drivers/isdn drivers/bluetooth sound net/wireless net/bluetooth net/mac80211)

say() { echo "root.sh: $*" >&2; }
cannot() { say "$*"; exit 3; }

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

make_root() {
    [ "$(cat "$cache/root.stamp" 2>/dev/null)" != "$recipe" ] || return 0
    say "making the root file system"
    rm -f "$cache"/root.*
    local folder=$cache/root.part release archive
    rm -rf "$folder" "$cache/root.tar"
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
        "Codename: $release" 'Component: main' | head -n 1)
    [ -n "$archive" ] || cannot "no archive of $release in apt's sources"
    mmdebstrap --quiet --variant=essential --include="$(IFS=,; echo "${packages[*]}")" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$release" "$cache/root.tar" "deb $archive $release main" >&2
    mkdir "$folder"
    tar --extract --file "$cache/root.tar" --directory "$folder" --exclude './dev/*'
    rm "$cache/root.tar"
    tar --create --directory "$kernel" lib | tar --extract --directory "$folder" --keep-directory-symlink
    # Its own program knows what its own program reads.
    chroot "$folder" depmod "$version"
    rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/*
    # The libraries of OpenGL, for screens that nobody looks at.
    find "$folder/usr/lib" -name 'libLLVM*' -delete
    mkdir -p "$folder/opt/skyledger" "$folder/etc/skyledger"
    truncate -s 3G "$cache/root.raw.part"
    mke2fs -q -t ext4 -d "$folder" -O ^has_journal "$cache/root.raw.part"
    rm -rf "$folder"
    mv "$cache/root.raw.part" "$cache/root.raw"
    printf %s "$recipe" >"$cache/root.stamp"
}

# A kernel with all that Debian builds, less what is needless here.
make_kernel() {
    kernel=$cache/linux
    if [ "$(cat "$cache/kernel.stamp" 2>/dev/null)" = "$recipe" ]; then
        version=$(cat "$kernel/version")
        return
    fi
    say "unpacking the kernel"
    unpack busybox-static "$cache/busybox.part"
    mv "$cache/busybox.part/bin/busybox" "$cache/busybox"
    rm -rf "$cache/busybox.part"
    rm -rf "$kernel" "$cache/kernel" "$cache/root.stamp"
    local package folder
    package=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-/ {print $2; exit}')
    [ -n "$package" ] || cannot "no Debian package linux-image-amd64 to be had"
    version=${package#linux-image-}
    unpack "$package" "$kernel"
    for folder in "${needless[@]}"; do rm -rf "$kernel/lib/modules/$version/kernel/$folder"; done
    mv "$kernel/boot/vmlinuz-$version" "$cache/kernel"
    rm -rf "$kernel/boot"
    printf %s "$version" >"$kernel/version"
    make_mediated
    "$cache/busybox" depmod -b "$kernel" "$version"
    printf %s "$recipe" >"$cache/kernel.stamp"
}

# The kernel's own sample of a driver of mediated devices, which Debian does not build: a card with serial ports.
make_mediated() {
    local headers=$cache/headers source=$cache/source
    say "building the sample of mediated devices"
    rm -rf "$headers" "$source"
    (
        set -e
        command -v gcc >/dev/null && command -v make >/dev/null
        unpack "linux-headers-$version" "$headers"
        unpack "linux-headers-${version%-amd64}-common" "$headers"
        unpack "linux-kbuild-${version%%.*}.$(echo "$version" | cut -d. -f2)" "$headers"
        unpack "linux-source-${version%%.*}.$(echo "$version" | cut -d. -f2)" "$source"
        # Headers name each other by where they are installed.
        grep -rlI --include=Makefile '/usr/src/linux-headers' "$headers/usr/src" |
            xargs -r sed -i "s|/usr/src/linux-headers|$headers/usr/src/linux-headers|g"
        for link in "$headers/usr/src/linux-headers-$version"/*; do
            [ -L "$link" ] || continue
            target=$(readlink "$link")
            case $target in /usr/*) ln -sfn "$headers$target" "$link" ;; esac
        done
        mkdir "$source/mtty"
        tar --extract --file "$source"/usr/src/linux-source-*.tar.xz --directory "$source/mtty" \
            --strip-components=3 --wildcards '*/samples/vfio-mdev/mtty.c'
        echo 'obj-m := mtty.o' >"$source/mtty/Makefile"
        make -s -C "$headers/usr/src/linux-headers-$version" M="$source/mtty" modules >&2
        mkdir -p "$kernel/lib/modules/$version/extra"
        cp "$source/mtty/mtty.ko" "$kernel/lib/modules/$version/extra/"
    ) || say "no sample of mediated devices: what is tried with it is left out"
    rm -rf "$headers" "$source"
}

# What finds the disk and starts it.
make_initramfs() {
    [ ! -s "$cache/initramfs" ] || [ "$cache/initramfs" -ot "$cache/kernel.stamp" ] ||
        [ "$cache/initramfs" -ot "$here/root.sh" ] || return 0
    local folder=$cache/initramfs.part modules=lib/modules/$version driver file
    rm -rf "$folder"
    mkdir -p "$folder"/{bin,dev,new,proc,sys,lib/modules}
    cp "$cache/busybox" "$folder/bin/busybox"
    for driver in virtio_pci virtio_blk ext4 crc32c_generic; do
        awk -v driver="/$driver.ko" 'index($1, driver ":") {gsub(":", ""); print; exit}' "$kernel/$modules/modules.dep"
    done | tr ' ' '\n' | sort -u | while read -r file; do
        [ -n "$file" ] || continue
        mkdir -p "$folder/$modules/${file%/*}"
        cp "$kernel/$modules/$file" "$folder/$modules/$file"
    done
    "$folder/bin/busybox" depmod -b "$folder" "$version"
    cat >"$folder/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for driver in crc32c_generic virtio_pci virtio_blk ext4; do modprobe "$driver"; done
until mount -t ext4 /dev/vda /new; do sleep 0.1; done
mkdir -p /new/run/kit
# What this run brings along: an archive in place of a file system.
tar -x -f /dev/vdb -C /new/run/kit || exec sh
mount --move /dev /new/dev
mount --move /proc /new/proc
mount --move /sys /new/sys
exec switch_root /new /run/kit/init
INIT
    chmod +x "$folder/init"
    (cd "$folder" && find . | bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$cache/initramfs"
    rm -rf "$folder"
}

make_guest() {
    # As their files are called.
    local drivers=(igbvf nvme xhci-pci ehci-pci uhci-hcd)
    [ "$(cat "$cache/guest.stamp" 2>/dev/null)" != "$recipe ${drivers[*]}" ] || return 0
    cp --sparse=always "$("$here/../servers/kvm.sh" guest "$cache" linux-image-amd64 "${drivers[@]}")" "$cache/guest"
    rm -rf "$cache/kvm"
    printf %s "$recipe ${drivers[*]}" >"$cache/guest.stamp"
}

[ "$(id -u)" = 0 ] || cannot "a root file system is made by root"
for program in mmdebstrap mke2fs; do
    command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || cannot "no $program here"
done
PATH=$PATH:/usr/sbin:/sbin
kernel= version=
make_kernel
make_root
make_initramfs
make_guest
echo "$cache"
