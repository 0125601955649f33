// Package cph resets phones of Huawei Cloud Phone Host (CPH), on which KooPhone itself stands.
//
// An attempt is
//
//  1. ShowCloudPhoneDetail: does the phone exist, is nobody at it; how it looks is the checkpoint
//  2. ResetCloudPhone, with this one phone, after [worker.Attempt.MaySend]
//  3. the job's ID joins the checkpoint
//  4. ShowJob, every 10 to 15 s, until the job has ended
//  5. ShowCloudPhoneDetail, until the phone is at rest: only then it is done
//
// An attempt that finds a checkpoint, or that an earlier call is in doubt, begins at 4. None
// resets while a call is in doubt: CPH has no idempotency keys and cannot cancel.
//
// # What the answer to the reset means
//
// By its code, if the table in codes.go has it; CPH documents HTTP 400 for every one of its codes.
//
//	a job for the phone           accepted: followed
//	an error for the phone        that phone's: by its code, else failed, retry. A code that says
//	                              that we are not let in is permanent: we were, with the others
//	CPS codes of a busy phone     busy
//	CPS codes that say no         permanent
//	CPS.0042, CPS.0099            not done, retry
//	CPS.0001, 0006, 0007, 0008,   we are not let in: counts as unreachable
//	0046; APIGW.0101, 0301 …
//	401                           the same
//	408, 425, 429, APIGW.0308     not done, retry: after Retry-After, or a minute if 429 has none
//	503 with Retry-After          not done, retry
//	400 with another code         failed, retry
//	3xx, other 4xx                permanent; redirects are not followed
//	CPS.0003, 400 without a code, in doubt
//	other 5xx
//	any other 2xx                 in doubt: not JSON, cut off, longer than 256 KiB, a name twice,
//	                              without the phone, with it twice, without a job
//	no answer                     in doubt; unreachable if nothing was sent
//
// # What comes of a call
//
//	job 2, phone 2 or 8           done
//	job 2, phone -5               failed, retry
//	job -1                        failed: permanent if its code is, else retry
//	job 1; phone 1, 3, 4, 7       asked again
//	job not found or timed out,   by the phone: seen at 3 and then at 2 or 8 is done; -5 is failed;
//	or no job                     2 is done if its update_time is later than before the call, its
//	                              state the same, and the job has not timed out. Else, after a
//	                              minute, in doubt for good
//	anything else                 asked again until the attempt's time is over; then in doubt, and
//	                              the next attempt goes on
//
// A phone that had state -5 before the call must have changed since, to count as failed by it.
//
// That a changed update_time means a reset is an inference, which is drawn only when the answer to
// the call was lost and CPH has no job for it: somebody who changes the same phone in the
// same minutes, without changing its state, looks the same.
//
// # No hidden calls
//
// Every reset has a connection of its own, which net/http never uses for a second try. MaySend is
// asked when net/http reads the body, with the connection up: a request whose body does not come
// resets nothing.
//
// The API is described at https://support.huaweicloud.com/intl/en-us/api-cph/cph_api_0514.html,
// the signatures in package tasks/sdkhmac.
package cph
