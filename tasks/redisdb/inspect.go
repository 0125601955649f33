package redisdb

// judgeTask reads asynq's answer about a task, given the error of Redis that is behind it.
func judgeTask(info *asynq.TaskInfo, err, behind error) tasks.TaskLook {
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound):
		return tasks.TaskLook{Fate: tasks.Missing}
	case err != nil && (behind == nil || strings.Contains(behind.Error(), "WRONGTYPE")):
		// Redis has answered, and asynq cannot read it: no worker could, either.
		return tasks.TaskLook{Fate: tasks.Unreadable}
	case err != nil:
		return tasks.TaskLook{Err: fmt.Errorf("look up task: %w", err)}
	case info.State == asynq.TaskStateCompleted:
		return tasks.TaskLook{Fate: tasks.Completed}
	case info.State == asynq.TaskStateArchived:
		return tasks.TaskLook{Fate: tasks.Archived}
	}
	return tasks.TaskLook{}
}

func (l *activeList) take(some []*asynq.TaskInfo) {
	for _, info := range some {
		d, err := tasks.DecodeDelivery(info.Payload)
		if info.Type != tasks.TypeReset || err != nil {
			continue // whoever runs it will archive it
		}
		// asynq notes the time when a task is put back, with or without a failure.
		l.found = append(l.found, tasks.ActiveTask{ID: info.ID, Delivery: d, Handling: info.LastFailedAt.Unix()})
	}
}

// Holds says who has items in hand, in the order of the deliveries.
func (db *DB) Holds(ctx context.Context, deliveries []tasks.Delivery) []tasks.Hold {
	pipe := db.rdb.Pipeline()
	records := make([]*redis.StringCmd, len(deliveries))
	for i, d := range deliveries {
		record, n := recordOf(d)
		records[i] = pipe.HGet(ctx, record, strconv.Itoa(n))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	pipe = db.rdb.Pipeline()
	signs := lifeSigns{}
	asked := make([]lifeSign, len(deliveries))
	holds := make([]tasks.Hold, len(deliveries))
	for i, d := range deliveries {
		raw, err := records[i].Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			holds[i].Err = fmt.Errorf("read item: %w", err)
			continue
		}
		var token string
		holds[i].Open, token, holds[i].Err = heldBy(raw, d.Number)
		if workerOf(token) != "" {
			asked[i] = signs.ask(ctx, pipe, d, token)
		}
	}
	_, _ = pipe.Exec(ctx)
	for i, sign := range asked {
		if sign.worker != nil {
			holds[i].Alive, holds[i].Err = sign.alive()
		}
	}
	return holds
}

