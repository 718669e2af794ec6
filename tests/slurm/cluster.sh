#!/usr/bin/env bash
# A private Slurm cluster of several nodes on this machine: munged, slurmctld and one slurmd a node, on loopback, as root.
#
#	cluster.sh up DIR [NODES [CPUS]]    then:  . DIR/env.sh; sinfo
#	cluster.sh down DIR                 ends it and removes DIR
#	cluster.sh lose DIR NODE            its daemon and all its processes end at once;  cluster.sh find DIR NODE: it comes back
#	cluster.sh why-not                  one line, when it cannot work here
#
# A node is a host of its own as far as its programs can tell: own host name, processes, /dev/shm and /etc/hosts in its own
# namespaces. Nothing outside DIR is written. Every process is ended by the pid that its own file in DIR names.
set -euo pipefail

why_not() {
	local c host
	[ "$(id -u)" = 0 ] || { echo 'slurmd must run as root'; return; }
	for c in munged slurmctld slurmd sbatch srun unshare; do
		command -v "$c" >/dev/null || { echo "$c is not installed (slurm-wlm, munge)"; return; }
	done
	unshare --fork --pid --uts --mount --mount-proc bash -c \
		'hostname n1 && mount --bind /etc/hosts /etc/hosts && mount -t tmpfs shm /dev/shm' 2>/dev/null ||
		{ echo 'this machine allows no namespaces with mounts of their own'; return; }
	host=$(hostname -s)
	# slurmctld, srun and sbatch listen on the address of their own host name
	[[ "$(getent ahostsv4 "$host" | head -1)" == '127.0.0.1 '* ]] ||
		echo "the host name must be loopback: echo '127.0.0.1 $host' >>/etc/hosts"
}

port_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_block() { # free_block COUNT: the first of so many free ports in a row
	local port p
	for ((port = 21000 + RANDOM % 70 * 100; port < 29000; port += 100)); do
		for ((p = port; p < port + $1; p++)); do port_free "$p" || continue 2; done
		echo "$port"
		return
	done
	return 1
}

wait_for() { # wait_for SECONDS WHAT COMMAND...
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { echo "cluster.sh: $what did not come up; see $dir/log" >&2; return 1; }
		sleep 0.1
	done
}

write_conf() {
	local host port
	host=$(hostname -s)
	port=$(free_block $((nodes + 1)))
	cat >"$dir/etc/slurm.conf" <<-CONF
		ClusterName=lwmtest
		SlurmctldHost=$host(127.0.0.1)
		SlurmctldPort=$port
		SlurmUser=root
		SlurmdUser=root
		AuthType=auth/munge
		CredType=cred/munge
		# a requeued job may not start again before its old credential has expired: 120 s by default
		AuthInfo=socket=$dir/run/munge.sock,cred_expire=5
		CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
		StateSaveLocation=$dir/state
		SlurmctldPidFile=$dir/run/slurmctld.pid
		SlurmctldLogFile=$dir/log/slurmctld.log
		SlurmdSpoolDir=$dir/spool/%n
		SlurmdPidFile=$dir/run/slurmd.%n.pid
		SlurmdLogFile=$dir/log/slurmd.%n.log
		# per node: the PMIx plug-in makes a folder named after job and step there
		TmpFS=$dir/tmp/%n
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU_Memory
		JobAcctGatherType=jobacct_gather/linux
		MpiDefault=pmix
		SchedulerType=sched/backfill
		SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
		# the core counts below are taken as they stand
		SlurmdParameters=config_overrides
		ReturnToService=2
		KillWait=5
		# a node whose daemon does not answer is given up soon
		SlurmdTimeout=10
		PreemptType=preempt/partition_prio
		PreemptMode=REQUEUE
		MinJobAge=600
		JobRequeue=1
		DefMemPerCPU=128
		NodeName=n[1-$nodes] NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=$cpus RealMemory=16000 State=UNKNOWN
		PartitionName=DEFAULT Nodes=ALL State=UP
		PartitionName=main Default=YES MaxTime=1-00:00:00 DefaultTime=00:30:00 PriorityTier=1 PreemptMode=REQUEUE
		PartitionName=urgent MaxTime=1:00:00 DefaultTime=00:10:00 PriorityTier=10 PreemptMode=OFF
	CONF
	# named, or slurmd looks for what is mounted on /sys/fs/cgroup and may not start
	echo CgroupPlugin=cgroup/v1 >"$dir/etc/cgroup.conf"
	cat >"$dir/env.sh" <<-ENV
		export SLURM_CONF=$dir/etc/slurm.conf
		export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
		export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
		# more ranks than cores: a waiting rank must give its core away
		export OMPI_MCA_mpi_yield_when_idle=1
	ENV
	{
		echo "127.0.0.1 localhost $host"
		for ((i = 1; i <= nodes; i++)); do echo "127.0.0.1 n$i"; done
	} >"$dir/etc/hosts"
}

start_node() { # start_node NAME: the shell stays as the namespace's first process and reaps what slurmd leaves
	mkdir -p "$dir/spool/$1" "$dir/tmp/$1"
	# shellcheck disable=SC2016
	setsid unshare --fork --kill-child --pid --uts --mount --mount-proc bash -c '
		hostname "$2" && mount --bind "$1/etc/hosts" /etc/hosts && mount -t tmpfs -o size=25% shm /dev/shm || exit 1
		slurmd -D -N "$2" &
		wait $!
	' node "$dir" "$1" -- >>"$dir/log/$1.out" 2>&1 </dev/null 3>&- &
	echo $! >"$dir/run/node.$1.pid"
}

all_idle() {
	[ "$(sinfo -h -N -p main -o %T | grep -cE '^(idle|mixed|allocated)$')" = "$nodes" ] && return
	scontrol update "nodename=n[1-$nodes]" state=resume
	return 1
}

up() {
	mkdir -p "$dir"/{etc,run,log,state,spool,tmp}
	dir=$(cd "$dir" && pwd -P)
	# a socket's path holds 107 bytes, and munged adds to it
	[ ${#dir} -le 80 ] || { echo "cluster.sh: the path is too long for a socket: $dir" >&2; return 1; }
	chmod 755 "$dir" "$dir/run"
	chmod 1777 "$dir/tmp"
	chmod 700 "$dir/etc"
	write_conf
	# shellcheck disable=SC1091
	. "$dir/env.sh"
	(umask 077 && head -c 1024 /dev/urandom >"$dir/etc/munge.key")
	munged --force --socket="$dir/run/munge.sock" --key-file="$dir/etc/munge.key" --log-file="$dir/log/munged.log" \
		--pid-file="$dir/run/munged.pid" --seed-file="$dir/run/munged.seed" --num-threads=4 2>>"$dir/log/munged.err" 3>&-
	wait_for 10 munged munge -S "$dir/run/munge.sock" -n
	slurmctld >>"$dir/log/slurmctld.out" 2>&1 3>&-
	wait_for 20 slurmctld sh -c 'scontrol ping | grep -q "is UP"'
	for ((i = 1; i <= nodes; i++)); do start_node "n$i"; done
	wait_for 30 "$nodes nodes" all_idle
}

# Is pid $1 a process of this cluster? A stale file must end nothing.
ours() {
	{
		tr '\0' '\n' <"/proc/$1/cmdline" | grep -qF -- "$dir" ||
			tr '\0' '\n' <"/proc/$1/environ" | grep -qxF -- "SLURM_CONF=$dir/etc/slurm.conf"
	} 2>/dev/null
}

stop() { # stop PIDFILE SIGNAL
	local pid i
	[ -s "$1" ] && read -r pid <"$1" && [[ $pid =~ ^[0-9]+$ ]] || return 0
	ours "$pid" || return 0
	kill "-$2" "$pid" 2>/dev/null || true
	for ((i = 0; i < 100; i++)); do ours "$pid" || return 0; sleep 0.1; done
	kill -KILL "$pid" 2>/dev/null || true
}

down() {
	[ -d "$dir/run" ] || return 0
	dir=$(cd "$dir" && pwd -P)
	export SLURM_CONF=$dir/etc/slurm.conf
	timeout 10 scancel --quiet --user=root 2>/dev/null || true
	stop "$dir/run/slurmctld.pid" TERM
	for f in "$dir"/run/node.*.pid; do
		[ ! -e "$f" ] || stop "$f" KILL # with it every process of the node ends
	done
	stop "$dir/run/munged.pid" TERM
	rm -rf "$dir"
}

# lose DIR NODE: as when its power goes; find DIR NODE: it comes back
lose() {
	dir=$(cd "$dir" && pwd -P)
	stop "$dir/run/node.$1.pid" KILL
}

find_again() {
	dir=$(cd "$dir" && pwd -P)
	# shellcheck disable=SC1091
	. "$dir/env.sh"
	rm -rf "${dir:?}/tmp/$1" "$dir/spool/$1" # started anew: what PMIx left of the steps that died would stop others of their number
	start_node "$1"
	nodes=$(sinfo -h -N -p main -o %N | sort -u | wc -l)
	wait_for 30 "$1" all_idle
}

case ${1:-} in
lose) dir=$2 ; lose "$3" ;;
find) dir=$2 ; find_again "$3" ;;
up) dir=$2 nodes=${3:-3} cpus=${4:-2} ; up || { down; exit 1; } ;;
down) dir=$2 ; down ;;
why-not) why_not ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 64 ;;
esac
