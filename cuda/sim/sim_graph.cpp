/* Capture and replay. A graph is what was enqueued while capturing, in that order; replaying it is
 * one operation, so edges inside a graph are those of its streams' program order. */
#include "cuda/sim/sim_internal.hpp"

namespace fsim
{

cudaError_t cudaStreamBeginCapture(cudaStream_t s, int)
{
    Locked l;
    if (!valid_stream(s) || s->capture)
        return fail(cudaErrorInvalidResourceHandle);
    s->capture = new Graph;
    s->capture->members.push_back(s);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *out)
{
    Locked l;
    *out = nullptr;
    if (!valid_stream(s) || !s->capture || s->capture->members[0] != s)
        return fail(cudaErrorInvalidResourceHandle);
    Graph *g = s->capture;
    for (Stream *member : g->members)
        member->capture = nullptr;
    g->open.erase(s);
    if (!g->open.empty()) {
        report("capture: found %zu streams with work that the first one never waits for",
               g->open.size());
        delete g;
        return fail(cudaErrorStreamCaptureUnjoined);
    }
    *out = g;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *status)
{
    Locked l;
    if (!valid_stream(s))
        return fail(cudaErrorInvalidResourceHandle);
    *status = s->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    Locked l;
    *exec = new GraphExec{graph->operations};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    Locked l;
    if (!exec || !valid_stream(s))
        return fail(cudaErrorInvalidResourceHandle);
    auto op = std::make_shared<Operation>();
    std::vector<std::shared_ptr<Operation>> steps = exec->operations;
    op->name = "graph";
    op->resource = COMPUTE;
    for (const auto &step : steps)
        op->cost_us += step->cost_us;
    op->body = [steps] {
        for (const auto &step : steps)
            step->body();
    };
    return fail(enqueue(l, s, op));
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    Locked l;
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    Locked l;
    delete exec;
    return cudaSuccess;
}

} // namespace fsim
