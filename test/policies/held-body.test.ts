/** Bodies of which several want to see the beginning, one after the other. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { hold } from "../../src/policies/held-body.ts";

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i % 251);

it("any number of holds, of any size, leave the body as it was", async () => {
  const size = fc.integer({ min: 1, max: 300 });
  await fc.assert(
    fc.asyncProperty(
      size,
      fc.array(size, { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      async (length, limits, stated) => {
        const whole = bytes(length);
        let body: Uint8Array | ReadableStream<Uint8Array> = new Response(whole).body as ReadableStream<Uint8Array>;
        for (const limit of limits) {
          if (body instanceof Uint8Array) break;
          const held = await hold(body, limit, stated ? String(length) : null);
          expect(held.begun).toEqual(whole.subarray(0, Math.min(limit, length) + 1));
          expect(held.more).toBe(length > limit);
          body = held.body;
        }
        expect(new Uint8Array(await new Response(body).arrayBuffer())).toEqual(whole);
      },
    ),
  );
});
