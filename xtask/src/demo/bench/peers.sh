# What people keep files encrypted with instead: each opens all files of MODEL into memory at PLACE, from memory at PLACE.
# `peers.sh MODEL PLACE` prints a line for each that is there: what|seconds|user|system. Those that are not: missing|what|why.
set -euo pipefail
model=$1 place=$2/peers
mkdir -p "$place"
cd "$place"
head -c 32 /dev/urandom | base64 > key
parallel=$(nproc)

# A process for each file, on every core: `each COMMAND` has the file as $1 and its name as $2.
each() {
    (cd "$1" && find . -type f -print0) | xargs -0 -P "$parallel" -I{} bash -c "$2" bash "$1/{}" {}
}

# What all CPUs of the machine have done so far, in hundredths of a second (proc(5), `stat`).
busy() { awk '/^cpu /{print $2 + $3 + $4 + $7 + $8}' /proc/stat; }

# `measured WHAT COMMAND`: into an empty directory, whose pages were there before.
measured() {
    rm -rf opened
    mkdir opened
    (cd "$model" && find . -type d -exec mkdir -p "$place/opened/{}" \;)
    local TIMEFORMAT="$1|%R|%U|%S"
    busy > before
    { time "${@:2}" 2> said; } 2>&1
    busy > after
    diff -rq "$model" opened > differences || { cat differences said >&2; exit 1; }
}

sealed() {
    rm -rf sealed
    mkdir sealed
    (cd "$model" && find . -type d -exec mkdir -p "$place/sealed/{}" \;)
}

if command -v openssl > /dev/null; then
    sealed
    each "$model" 'openssl enc -aes-256-ctr -pbkdf2 -pass file:key -in "$1" -out "sealed/$2"'
    measured 'openssl enc, unauthenticated' \
        each sealed 'openssl enc -d -aes-256-ctr -pbkdf2 -pass file:key -in "$1" -out "opened/$2"'
else
    echo 'missing|openssl enc, unauthenticated|not installed (`apt-get install openssl`)'
fi

if command -v age-keygen > /dev/null; then
    sealed
    rm -f identity
    age-keygen -o identity 2> said
    recipient=$(age-keygen -y identity)
    export recipient
    each "$model" 'age -r "$recipient" -o "sealed/$2" "$1"'
    measured 'age' each sealed 'age -d -i identity -o "opened/$2" "$1"'
else
    echo 'missing|age|not installed (`apt-get install age`)'
fi

if command -v gocryptfs > /dev/null && [ -w /dev/fuse ]; then
    rm -rf sealed
    mkdir -p sealed mounted
    gocryptfs -q -init -scryptn 10 -passfile key sealed
    gocryptfs -q -passfile key sealed mounted
    cp -r "$model/." mounted/
    # Mounted anew: what was written is in no cache.
    fusermount -u mounted
    gocryptfs -q -fg -passfile key sealed mounted > said 2>&1 &
    daemon=$!
    until mountpoint -q mounted; do sleep 0.1; done
    ticks() { cut -d' ' -f14,15 "/proc/$daemon/stat" | tr ' ' '+'; }
    before=$(($(ticks)))
    measured 'gocryptfs' each mounted 'cp "$1" "opened/$2"'
    # Of the file system's own process, beside that of cp.
    echo "gocryptfs|0|$((($(ticks) - before) * 10))e-3|0"
    fusermount -u mounted
    wait "$daemon" || true
else
    echo 'missing|gocryptfs|not installed, or no /dev/fuse (`apt-get install gocryptfs`)'
fi

# `luks`: prints why it cannot be, or its line. What the kernel spends is in no process, so the whole machine's CPU counts.
luks() {
    local what='LUKS, unauthenticated' mapped=weightvault-bench-$$ reason
    if ! command -v cryptsetup > /dev/null; then
        echo "missing|$what|not installed (\`apt-get install cryptsetup-bin\`)"
        return
    fi
    if [ "$(id -u)" != 0 ] || ! grep -q device-mapper /proc/misc && ! modprobe -q dm-crypt 2> /dev/null; then
        echo "missing|$what|needs root and a kernel with device mapper and dm-crypt, which this one has not"
        return
    fi
    rm -rf sealed mounted
    mkdir mounted
    truncate -s $(($(du -sb "$model" | cut -f1) * 11 / 10 + (128 << 20))) image
    if ! reason=$(cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file key image 2>&1 &&
        cryptsetup open --key-file key image "$mapped" 2>&1 && mkfs.ext4 -q "/dev/mapper/$mapped" 2>&1); then
        cryptsetup close "$mapped" 2> /dev/null || true
        echo "missing|$what|this kernel does not take it: ${reason//[|$'\n']/ }"
        return
    fi
    mount "/dev/mapper/$mapped" mounted
    cp -r "$model/." mounted/
    # Mounted anew: what was written is in no cache.
    umount mounted
    mount "/dev/mapper/$mapped" mounted
    rm -rf mounted/lost+found
    measured "$what" each mounted 'cp "$1" "opened/$2"' > line
    echo "$(cut -d'|' -f1,2 line)|$((($(cat after) - $(cat before)) * 10))e-3|0"
    umount mounted
    cryptsetup close "$mapped"
}
luks
cd /
rm -rf "$place"
