// SPDX-License-Identifier: Apache-2.0

package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu" -type label -type session -type agent -type state -type edge -type glob_node -type net_key -type port_key -type port_value -type sock_info -type grant -type grant_path_key -type grant_net_key -type grants_at -type granted_file -type mapped -type grant_flag -type home -type counters -type budget -type latency -type event -type event_short -type event_long -type operation -type verdict -type reason -type object -type kind -type access -type limits -type agent_flag -type state_flag enforcer enforcer.bpf.c
