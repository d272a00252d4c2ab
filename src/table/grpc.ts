/** What a request's Content-Type says: `application/grpc-web`, `application/grpc-web-text` or native `application/grpc`, with any suffix. */
export const isGrpc = (contentType: string | null): boolean =>
  contentType !== null && /^application\/grpc(?:-web(?:-text)?)?(?:\+[a-z0-9.-]+)?(?:;|$)/i.test(contentType);
