// The seed's own design: one struct behind a sync.RWMutex, encoding/json for
// what comes in and what goes out. Types, functions and rules are the seed's;
// added are the units' order, attempts, total tasks, finish times and
// unit.added, without which its answers would not equal the other peers'.

package main

import (
	"encoding/json"
	"sync"
	"time"
)

// Event is one line of the stream. The payload stays raw until a rule needs it.
type Event struct {
	Type    string          `json:"type"`
	Time    *time.Time      `json:"time"`
	Run     string          `json:"run"`
	Unit    string          `json:"unit"`
	Task    *int            `json:"task"`
	PR      *int            `json:"pr"`
	Payload json.RawMessage `json:"payload"`
	Error   string          `json:"error"`
}

// UnitState is one unit, and its copy in a snapshot.
type UnitState struct {
	ID          string     `json:"id"`
	Status      string     `json:"status"`
	CurrentTask int        `json:"currentTask"`
	TotalTasks  int        `json:"totalTasks"`
	Attempts    int        `json:"attempts"`
	Error       string     `json:"error,omitempty"`
	StartedAt   *time.Time `json:"startedAt,omitempty"`
	FinishedAt  *time.Time `json:"finishedAt,omitempty"`
}

// GraphNode is a unit in the graph.
type GraphNode struct {
	ID             string `json:"id"`
	Level          int    `json:"level"`
	Tasks          int    `json:"tasks"`
	Status         string `json:"status,omitempty"`
	CompletedTasks int    `json:"completed_tasks,omitempty"`
}

// GraphEdge says that From depends on To.
type GraphEdge struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// GraphData is the graph as orch.started brought it.
type GraphData struct {
	Nodes  []GraphNode `json:"nodes"`
	Edges  []GraphEdge `json:"edges"`
	Levels [][]string  `json:"levels"`
}

// StateSummary counts the units by status.
type StateSummary struct {
	Total      int `json:"total"`
	Pending    int `json:"pending"`
	Ready      int `json:"ready"`
	InProgress int `json:"inProgress"`
	Complete   int `json:"complete"`
	Failed     int `json:"failed"`
	Blocked    int `json:"blocked"`
}

// StateSnapshot is a copy of the run between two events.
type StateSnapshot struct {
	Version     int          `json:"version"`
	Connected   bool         `json:"connected"`
	Status      string       `json:"status"`
	StartedAt   *time.Time   `json:"startedAt,omitempty"`
	FinishedAt  *time.Time   `json:"finishedAt,omitempty"`
	Parallelism int          `json:"parallelism"`
	Error       string       `json:"error,omitempty"`
	Units       []UnitState  `json:"units"`
	Summary     StateSummary `json:"summary"`
}

type startedPayload struct {
	UnitCount   int        `json:"unit_count"`
	Parallelism int        `json:"parallelism"`
	Graph       *GraphData `json:"graph"`
}

type unitStartedPayload struct {
	TotalTasks     *int `json:"total_tasks"`
	CompletedTasks *int `json:"completed_tasks"`
}

type unitAddedPayload struct {
	Tasks     int      `json:"tasks"`
	DependsOn []string `json:"depends_on"`
}

// Store maintains the current orchestration state. It is safe for concurrent
// access.
type Store struct {
	mu          sync.RWMutex
	version     int
	connected   bool
	status      string
	startedAt   *time.Time
	finishedAt  *time.Time
	parallelism int
	err         string
	graph       *GraphData
	units       map[string]*UnitState
	order       []*UnitState
}

// NewStore creates an empty state store in "waiting" status.
func NewStore() *Store {
	return &Store{status: "waiting", units: make(map[string]*UnitState)}
}

// HandleEvent processes an event and updates state accordingly. Thread-safe.
// A payload that does not decode is an error and changes nothing.
func (s *Store) HandleEvent(e *Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Type {
	case "orch.started":
		var p startedPayload
		if err := decodePayload(e.Payload, &p); err != nil {
			return err
		}
		s.start(e, &p)
	case "unit.added":
		var p unitAddedPayload
		if err := decodePayload(e.Payload, &p); err != nil {
			return err
		}
		if s.status != "waiting" {
			s.add(&UnitState{ID: e.Unit, Status: "pending", TotalTasks: p.Tasks})
		}
	case "unit.queued":
		if u := s.units[e.Unit]; u != nil {
			u.Status = "ready"
			u.Error = ""
		}
	case "unit.started":
		var p unitStartedPayload
		if err := decodePayload(e.Payload, &p); err != nil {
			return err
		}
		if u := s.units[e.Unit]; u != nil {
			u.Status = "in_progress"
			u.StartedAt = e.Time
			u.FinishedAt = nil
			u.Attempts++
			u.Error = ""
			if p.TotalTasks != nil {
				u.TotalTasks = *p.TotalTasks
			}
			if p.CompletedTasks != nil {
				u.CurrentTask = *p.CompletedTasks
			}
		}
	case "task.started":
		if u := s.units[e.Unit]; u != nil {
			if e.Task != nil {
				u.CurrentTask = *e.Task
			} else {
				u.CurrentTask++
			}
		}
	case "unit.completed":
		if u := s.units[e.Unit]; u != nil {
			u.Status = "complete"
			u.FinishedAt = e.Time
		}
	case "unit.failed":
		if u := s.units[e.Unit]; u != nil {
			u.Status = "failed"
			u.Error = e.Error
			u.FinishedAt = e.Time
		}
	case "unit.blocked":
		if u := s.units[e.Unit]; u != nil {
			u.Status = "blocked"
		}
	case "orch.completed":
		s.status = "completed"
		s.finishedAt = e.Time
	case "orch.failed":
		s.status = "failed"
		s.err = e.Error
		s.finishedAt = e.Time
	case "orch.reset":
		s.clear()
	}
	s.version++
	return nil
}

// Snapshot returns the current state as a StateSnapshot. Thread-safe for
// concurrent reads.
func (s *Store) Snapshot() *StateSnapshot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	snapshot := &StateSnapshot{
		Version:     s.version,
		Connected:   s.connected,
		Status:      s.status,
		StartedAt:   s.startedAt,
		FinishedAt:  s.finishedAt,
		Parallelism: s.parallelism,
		Error:       s.err,
		Units:       make([]UnitState, len(s.order)),
	}
	sum := &snapshot.Summary
	sum.Total = len(s.order)
	for i, u := range s.order {
		snapshot.Units[i] = *u
		switch u.Status {
		case "pending":
			sum.Pending++
		case "ready":
			sum.Ready++
		case "in_progress":
			sum.InProgress++
		case "complete":
			sum.Complete++
		case "failed":
			sum.Failed++
		case "blocked":
			sum.Blocked++
		}
	}
	return snapshot
}

// Graph returns the dependency graph, or nil if not yet received. Thread-safe.
func (s *Store) Graph() *GraphData {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.graph
}

// SetConnected updates the connection status.
func (s *Store) SetConnected(connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected = connected
}

// Reset clears all state for a new run.
func (s *Store) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.version++
}

func (s *Store) start(e *Event, p *startedPayload) {
	s.clear()
	s.status = "running"
	s.startedAt = e.Time
	s.parallelism = p.Parallelism
	s.graph = p.Graph
	if p.Graph == nil {
		return
	}
	s.units = make(map[string]*UnitState, len(p.Graph.Nodes))
	s.order = make([]*UnitState, 0, len(p.Graph.Nodes))
	for _, n := range p.Graph.Nodes {
		status := n.Status
		if status == "" {
			status = "pending"
		}
		s.add(&UnitState{ID: n.ID, Status: status, CurrentTask: n.CompletedTasks, TotalTasks: n.Tasks})
	}
}

func (s *Store) add(u *UnitState) {
	if s.units[u.ID] == nil {
		s.units[u.ID] = u
		s.order = append(s.order, u)
	}
}

func (s *Store) clear() {
	s.status = "waiting"
	s.startedAt = nil
	s.finishedAt = nil
	s.parallelism = 0
	s.err = ""
	s.graph = nil
	s.units = make(map[string]*UnitState)
	s.order = nil
}

func decodePayload(raw json.RawMessage, into any) error {
	if raw == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}
