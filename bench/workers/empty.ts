/** What a Worker costs before it holds anything: the start-up figures are measured against this. */
export default {
  fetch: (): Response => new Response("ok"),
};
