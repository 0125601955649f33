package sdktest

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/config"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/def"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/region"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"

	"batchreset/api"
)

// The requests are those of the SDK for Java, which has a KooPhone client; the SDK for Go has only what is
// below such a client.

type instances struct {
	Body *instancesBody `json:"body,omitempty"`
}

type instancesBody struct {
	InstanceIds []string `json:"instance_ids"`
}

type resetAnswer struct {
	ErrorCode *string `json:"error_code,omitempty"`
	Data      *struct {
		TaskId  string `json:"task_id"`
		CmdJobs []struct {
			InstanceId string `json:"instance_id"`
			JobId      string `json:"job_id"`
		} `json:"cmd_jobs"`
	} `json:"data,omitempty"`
	HttpStatusCode int `json:"-"`
}

type taskRequest struct {
	TaskId string `json:"task_id"`
}

type taskAnswer struct {
	Data *struct {
		Jobs []struct {
			JobId  string `json:"job_id"`
			Status int    `json:"status"`
		} `json:"jobs"`
	} `json:"data,omitempty"`
	HttpStatusCode int `json:"-"`
}

type statusAnswer struct {
	Data *struct {
		StatusResults []struct {
			InstanceId string `json:"instance_id"`
			Status     int    `json:"status"`
		} `json:"status_results"`
	} `json:"data,omitempty"`
	HttpStatusCode int `json:"-"`
}

type listRequest struct {
	XRequestId string `json:"x-request-id"`
	PageNo     string `json:"page_no"`
	PageSize   string `json:"page_size"`
}

type listAnswer struct {
	Data *struct {
		Result []struct {
			InstanceId string `json:"instance_id"`
		} `json:"result"`
		TotalCount int `json:"total_count"`
	} `json:"data,omitempty"`
	HttpStatusCode int `json:"-"`
}

func post(path string, answer func() any) *def.HttpRequestDef {
	return def.NewHttpRequestDefBuilder().WithMethod(http.MethodPost).WithPath(path).WithResponse(answer()).
		WithContentType("application/json").
		WithRequestField(def.NewFieldDef().WithName("Body").WithLocationType(def.Body)).Build()
}

// koophone is what the SDK makes of a region and a key. The region's endpoint is in the environment: that is
// all that a program changes.
func koophone(t *testing.T, url, access, secret string) *core.HcHttpClient {
	t.Helper()
	t.Setenv("HUAWEICLOUD_SDK_REGION_KOOPHONE_CN_NORTH_4", url)
	t.Setenv("HOME", t.TempDir())
	provider := region.DefaultProviderChain("KOOPHONE")
	if provider.GetRegion("cn-north-4") == nil {
		t.Fatal("the SDK does not find the region of the environment")
	}
	credentials, err := basic.NewCredentialsBuilder().WithAk(access).WithSk(secret).WithProjectId("any").SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	client, err := core.NewHcHttpClientBuilder().WithCredential(credentials).WithRegion(provider.GetRegion("cn-north-4")).
		WithHttpConfig(config.DefaultHttpConfig().WithUserAgent("fleet-manager/1").WithTimeout(0)).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func call[T any](t *testing.T, client *core.HcHttpClient, request any, d *def.HttpRequestDef) (*T, error) {
	t.Helper()
	answer, err := client.Sync(request, d)
	if err != nil {
		return nil, err
	}
	return answer.(*T), nil
}

func TestTheSDKForGo(t *testing.T) {
	db, url := serve(t, api.Config{})
	access, secret := addKey(t, db)
	client := koophone(t, url, access, secret)
	two := &instances{&instancesBody{[]string{"phone-1", "phone-2"}}}

	listed, err := call[listAnswer](t, client, &listRequest{"R1", "1", "10"}, def.NewHttpRequestDefBuilder().WithMethod(http.MethodGet).
		WithPath("/v1/instances/batch-query").WithResponse(new(listAnswer)).WithContentType("application/json").
		WithRequestField(def.NewFieldDef().WithName("XRequestId").WithJsonTag("x-request-id").WithLocationType(def.Query)).
		WithRequestField(def.NewFieldDef().WithName("PageNo").WithJsonTag("page_no").WithLocationType(def.Query)).
		WithRequestField(def.NewFieldDef().WithName("PageSize").WithJsonTag("page_size").WithLocationType(def.Query)).Build())
	if err != nil || listed.Data.TotalCount != 3 || listed.Data.Result[0].InstanceId != "phone-1" {
		t.Fatalf("list: %+v, %v", listed, err)
	}
	reset, err := call[resetAnswer](t, client, two, post("/v1/instances/batch-reset", func() any { return new(resetAnswer) }))
	if err != nil || *reset.ErrorCode != "0" || len(reset.Data.CmdJobs) != 2 {
		t.Fatalf("reset: %+v, %v", reset, err)
	}
	task, err := call[taskAnswer](t, client, &taskRequest{reset.Data.TaskId}, def.NewHttpRequestDefBuilder().WithMethod(http.MethodGet).
		WithPath("/v1/instances/tasks/{task_id}").WithResponse(new(taskAnswer)).WithContentType("application/json").
		WithRequestField(def.NewFieldDef().WithName("TaskId").WithJsonTag("task_id").WithLocationType(def.Path)).Build())
	if err != nil || len(task.Data.Jobs) != 2 || task.Data.Jobs[0].Status != 1 {
		t.Fatalf("task: %+v, %v", task, err)
	}
	states, err := call[statusAnswer](t, client, two, post("/v1/instances/batch-query-status", func() any { return new(statusAnswer) }))
	if err != nil || states.Data.StatusResults[1].Status != 1 {
		t.Fatalf("status: %+v, %v", states, err)
	}

	// The SDK tells its callers the code and the message.
	client = koophone(t, url, access, "another secret")
	_, err = call[resetAnswer](t, client, two, post("/v1/instances/batch-reset", func() any { return new(resetAnswer) }))
	var refused *sdkerr.ServiceResponseError
	if !errors.As(err, &refused) || refused.StatusCode != 401 || refused.ErrorCode != "APIGW.0301" || !strings.Contains(refused.ErrorMessage, "verify aksk signature fail") {
		t.Errorf("a wrong secret: %v", err)
	}
	if _, err := os.Stat(os.Getenv("HOME") + "/.huaweicloud"); err == nil {
		t.Error("the SDK has written into the home directory")
	}
}
