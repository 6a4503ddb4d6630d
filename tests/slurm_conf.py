"""What the daemons of a Slurm for tests are told; braces are filled in by slurm_cluster.py."""

from __future__ import annotations

CONF = """
ClusterName=emsr
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.own
SlurmdPidFile={folder}/run/slurmd.own
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/bin/task
JobAcctGatherType=jobacct_gather/linux
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=30
KillWait=5
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={worker} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=cpu Nodes={node} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={node} MaxTime=INFINITE State=UP
"""
ACCOUNTED = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accountant}
AccountingStoragePass={folder}/munge/socket
AccountingStorageTRES=gres/gpu
"""
SLURMDBD = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={accountant}
SlurmUser=root
PidFile={folder}/run/slurmdbd.own
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass={word}
StorageLoc=slurm
"""
# what a task finds in its environment; its output would be taken as orders
TASK = """#!/bin/sh
printf '%s\\t%s\\t%s\\t%s\\t%s\\n' "$(date +%s.%N)" "$SLURM_JOB_ID" "$SLURM_STEP_ID" "$SLURM_JOB_PARTITION" \
  "${{CUDA_VISIBLE_DEVICES-none}}" >> {folder}/log/tasks.tsv
"""
