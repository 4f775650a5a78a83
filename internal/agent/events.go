// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"slices"
)

// Event names a line of the log that operators look for. In the journal each has
// a MESSAGE_ID, which does not change when the words do.
type Event string

// The events.
const (
	EventRenewed   Event = "renewed"    // a renewal was made
	EventFailed    Event = "failed"     // a renewal failed, and is tried again
	EventRefused   Event = "refused"    // the server refused this host
	EventNotServed Event = "not-served" // a new set was not served, and was taken back
	EventAlarm     Event = "alarm"      // something should be looked at
	EventAlarmOver Event = "alarm-over" // it is well again
)

// messageIDs were drawn at random, once.
var messageIDs = map[Event]string{
	EventRenewed: "90142639e1aa35ce450f3766fd54c55b", EventFailed: "f3e599c15579145065e31ed2f816b684", EventRefused: "82228b7f3531d3a3bf53d8ab40e50af7", EventNotServed: "2bb5d7215a6be209f007498f87701323", EventAlarm: "de631386c069bf2078c2974a0b17133c", EventAlarmOver: "d1087c6e94be4e091b4d4b9fcf91ef3d",
}

// MessageID is the event's MESSAGE_ID in the journal (systemd.journal-fields(7)).
func (e Event) MessageID() string { return messageIDs[e] }

// Events lists all events.
func Events() []Event { return slices.Sorted(maps.Keys(messageIDs)) }
