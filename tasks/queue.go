package tasks

import (
	"strconv"
	"strings"
)

// QueuePrefix begins the names of the asynq queues that instances are reset from.
const QueuePrefix = "reset-"

// QueueName is queue n of a driver: reset-n of the default one, reset-driver-n of another.
func QueueName(driver string, n int) string { return queueName(driver, strconv.Itoa(n)) }

func queueName(driver, n string) string {
	if driver == "" || driver == DefaultDriver {
		return QueuePrefix + n
	}
	return QueuePrefix + driver + "-" + n
}

// QueueOf is the queue of a driver for items of a job that is in the given queue of the default one.
func QueueOf(queue, driver string) string {
	return queueName(driver, strings.TrimPrefix(queue, QueuePrefix))
}

// DriverOf is the driver whose queue this is; ok is false if it is none of ours.
func DriverOf(queue string) (driver string, ok bool) {
	rest, ok := strings.CutPrefix(queue, QueuePrefix)
	if !ok {
		return "", false
	}
	end := strings.LastIndexByte(rest, '-')
	if n := rest[end+1:]; n == "" || strings.Trim(n, "0123456789") != "" {
		return "", false
	}
	if end < 0 {
		return DefaultDriver, true
	}
	return rest[:end], CheckDriver(rest[:end]) == nil
}
