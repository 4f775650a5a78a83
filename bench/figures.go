// SPDX-License-Identifier: Apache-2.0

package main

import "math"

// A figure is what is said about a number beside its value.
type figure struct {
	about string
	least float64 // wanted: at least; 0 is no bound
	most  float64 // wanted: at most; +Inf is no bound
}

var unbounded = math.Inf(1)

func atLeast(bound float64, about string) figure { return figure{about, bound, unbounded} }

func atMost(bound float64, about string) figure { return figure{about, 0, bound} }

func plain(about string) figure { return figure{about, 0, unbounded} }

func (f figure) bounded() bool { return f.least > 0 || f.most < unbounded }

func (f figure) met(value float64) bool { return value >= f.least && value <= f.most }

// A section is figures that stand in one table.
type section struct {
	title, intro string
	figures      []named
}

type named struct {
	name string
	figure
}

// sections are everything that is measured.
var sections = []section{
	{
		"Verification, by itself",
		"Processor time of one process, garbage collection included, in slices of 40 ms taken in turn; the same proof of a TPM " +
			"(RSA-2048 EK with a chain of two RSA-3072 certificates, 16 PCRs, an event log of 45 kB with 116 events) for each verifier. " +
			"Omen's share includes the verdict of a boot policy and the Secure Boot state, go-tpm-tools' its machine state; go-attestation is not asked for its Secure Boot state.",
		[]named{
			{"verify_renewal_over_ecdsa", atMost(1.15, "all that a renewal makes the server compute ÷ one bare ECDSA P-256 verification")},
			{"verify_login_over_goattestation", atMost(0.8, "a first login (EK chain, credential, quote, event log) ÷ the same by go-attestation v0.6.4")},
			{"verify_login_over_gotpmtools", atMost(0.8, "the same ÷ the same by go-tpm-tools v0.4.7")},
			{"verify_login_alloc_over_log", atMost(4, "bytes that a first login allocates ÷ the event log's")},
		},
	},
	{
		"Logins through OpenBao",
		"Rate of the tpm method's logins, challenge and login counted as one, ÷ the rate of the other's on the same server, in slices taken in turn. " +
			"null is a plugin that answers the same two requests with bodies of the same size and does nothing. single is one node, raft3 the leader of three; c1 and c16 are the callers. " +
			"The servers keep their data on a disk and write an audit log; servers and callers share the machine. A caller keeps its connection and signs with a key in memory.",
		[]named{
			{"login_over_null_single_c1", atLeast(0.85, "over the plugin that does nothing")},
			{"login_over_null_single_c16", atLeast(0.85, "over the plugin that does nothing")},
			{"login_over_null_raft3_c1", atLeast(0.85, "over the plugin that does nothing")},
			{"login_over_null_raft3_c16", atLeast(0.85, "over the plugin that does nothing")},
			{"login_over_approle_raft3_c16", atLeast(2, "over AppRole with its default service tokens")},
			{"login_over_cert_raft3_c16", atLeast(2, "over cert auth with its default service tokens")},
			{"login_over_approle_batch_raft3_c16", plain("over AppRole with batch tokens")},
			{"login_over_cert_batch_raft3_c16", plain("over cert auth with batch tokens")},
			{"raft_writes_per_login", atMost(0, "raft writes over 1,000 renewals, less those of an idle span of the same length and the bulk of last-seen times, ÷ 1,000")},
			{"raft_last_seen_writes", plain("bulk writes of last-seen times during those 1,000 renewals")},
		},
	},
	{
		"A herd after a power cut",
		"TPMs in software, each with its own keys and a client of its own (the agent's: new connection, three addresses, retries), enrolled and pinned beforehand, " +
			"with reset counters one higher, attest at the same moment against three nodes; callers and servers share the machine, the one process that is all hosts connects 256 of them at a time, and raft's time-outs are twice OpenBao's own. Medians of three. " +
			"Refused is a host of which a challenge or login ended with a refusal or an HTTP error, even if it came in by the next; calls that ended without an answer are told beside the figures.",
		[]named{
			{"herd_10000_seconds", plain("until the last of 10,000 is in")},
			{"herd_10000_p99_seconds", plain("until 99 of 100 are in")},
			{"herd_10000_refused", atMost(0, "hosts that were told a refusal or an HTTP error; the worst of the rounds")},
			{"herd_cost_growth_1000_to_10000", atMost(1.1, "seconds a host at 10,000 ÷ at 1,000")},
			{"plugin_rss_mib", plain("MiB, the most that a node's plugin had")},
		},
	},
	{
		"The agent",
		"In a world of its own: swtpm as TPM, state in memory.",
		[]named{
			{"tpm_commands_renewal_file", atMost(1, "TPM commands of one renewal with file keys, AK pinned and persisted")},
			{"tpm_commands_renewal_tpm", atMost(5, "of one renewal with one key in the TPM, storage root persistent")},
			{"reload_handshakes_refused", atMost(0, "handshakes that nginx refused to four clients while its certificate was renewed five times")},
			{"agent_own_ms_per_certificate", atMost(10, "ms of the agent's own work (all but network, restarts and probes) per certificate")},
			{"agent_own_over_bare_parts", atMost(2, "the agent's own work ÷ its bare parts (one quote; key, CSR and chain check per certificate; the same files written and fsynced)")},
			{"agent_rss_mib", atMost(20, "MiB of an agent that waits, after a hundred renewals")},
			{"agent_binary_mib", atMost(18, "MiB of omen-agent, static")},
		},
	},
	{
		"Services that restart",
		"In a world of its own, with Keylime's own verifier and registrar: the longest time in which nobody completes a TLS handshake, while omen-agent renews the service's certificate (stop, start, probes) ÷ while the service is only stopped by TERM and started again. In turn.",
		[]named{
			{"restart_over_bare_verifier", atMost(1.1, "the verifier")},
			{"restart_over_bare_registrar", atMost(1.1, "the registrar")},
			{"restart_seconds_verifier", plain("seconds without the verifier, of a renewal")},
			{"restart_seconds_registrar", plain("seconds without the registrar, of a renewal")},
		},
	},
}
