#!/bin/sh
# PID 1 of the measured guest, and all there is in it beside the agent. It says what was measured, loads the model under each
# rule, prints the digests of the files that it got, and turns the machine off. Lines that begin with "vm:" are for who booted it.
export PATH=/bin TSS2_LOG=all+none
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS0 2>&1
mkdir /dev/shm
mount -t tmpfs -o mode=1777 shm /dev/shm

off() {
	echo "vm: $1"
	poweroff -f
	while :; do sleep 1; done
}

for pcr in 0 2 4 7 9; do
	echo "vm: pcr $pcr $(cat /sys/class/tpm/tpm0/pcr-sha256/$pcr)"
done

# Without an agent this is the guest that only shows what its firmware measures.
agent=/bin/vault-enclave
if [ ! -e $agent ]; then
	hexdump -ve '1/1 "%02x"' /sys/kernel/security/tpm0/binary_bios_measurements | fold -w 96 | sed 's/.*/vm: log &/'
	echo
	off done
fi

# TPM2_PCR_Extend of PCR 11 by the SHA-256 of the agent, before it runs. What measures it is itself measured, into PCR 9.
digest=$(sha256sum $agent | cut -d ' ' -f 1)
extend=80020000004100000182 # tag, size, command
extend=${extend}0000000b00000009400000090000000000 # PCR 11; an empty password
extend=${extend}00000001000b$digest # one digest, SHA-256
exec 3<>/dev/tpm0
printf "$(echo $extend | sed 's/../\\x&/g')" >&3
answer=$(dd bs=4096 count=1 <&3 2>/dev/null | hexdump -ve '1/1 "%02x"')
exec 3>&-
case $answer in
8002????????00000000*) echo "vm: pcr 11 $(cat /sys/class/tpm/tpm0/pcr-sha256/11)" ;;
*) off "failed: the TPM did not take the digest of the agent: $answer" ;;
esac

for module in /modules/*; do
	insmod "$module" || off "failed: $module"
done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up || off "failed: no network"

. /etc/guest.conf # model, rules. $vault_host is from the kernel's command line
for rule in $rules; do
	echo "vm: rule $rule"
	: >/tmp/$rule.log
	vault-enclave load $model --rule $rule --vault /etc/vault.json --host $vault_host --into /dev/shm/weights >/tmp/$rule.log 2>&1 &
	loading=$!
	waited=0
	while kill -0 $loading 2>/dev/null && ! grep -q '^ready ' /tmp/$rule.log && [ $waited -lt 120 ]; do
		sleep 1
		waited=$((waited + 1))
	done
	if grep -q '^ready ' /tmp/$rule.log; then
		(cd /dev/shm/weights && find . -type f | sort | xargs sha256sum | sed 's/^/vm: sha256 /')
	fi
	kill $loading 2>/dev/null
	wait $loading
	sed 's/^/agent: /' /tmp/$rule.log
	[ -z "$(ls /dev/shm/weights 2>/dev/null)" ] || off "failed: plaintext is left"
done
off done
