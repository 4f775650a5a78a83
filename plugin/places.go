// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"container/list"
	"context"
	"sync"
)

// maxWorking is how many hosts' requests are worked on at once. After a power cut
// ten thousand come together; the others wait in the order in which they came.
const maxWorking = 64

// maxLogins is how many waiting logins go before a challenge that waits too. A
// challenge that is answered is good for a minute: what has begun is finished
// first, and a crowd of logins keeps no challenge waiting for ever.
const maxLogins = 3

// places bounds what is worked on at once. Who waits and gives up has cost
// nothing.
type places struct {
	mu                 sync.Mutex
	free               int
	logins, challenges list.List // of chan struct{}, closed when its place is there
	row                int       // logins that went before a challenge
}

// enter waits for a place. leave gives it to the next one.
func (p *places) enter(ctx context.Context, login bool) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return p.leave, nil
	}
	line := &p.challenges
	if login {
		line = &p.logins
	}
	turn := make(chan struct{})
	waiting := line.PushBack(turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return p.leave, nil
	case <-ctx.Done():
		p.giveUp(line, waiting)
		return nil, ctx.Err()
	}
}

func (p *places) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass()
}

// pass gives a place that became free to who is next.
func (p *places) pass() {
	line := &p.challenges
	if p.logins.Len() > 0 && (p.row < maxLogins || p.challenges.Len() == 0) {
		line, p.row = &p.logins, p.row+1
	} else {
		p.row = 0
	}
	if line.Len() == 0 {
		p.free++
		return
	}
	close(line.Remove(line.Front()).(chan struct{}))
}

// giveUp takes one who does not wait any more out of the line, or passes on the
// place that he was given in that moment.
func (p *places) giveUp(line *list.List, waiting *list.Element) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-waiting.Value.(chan struct{}):
		p.pass()
	default:
		line.Remove(waiting)
	}
}
