/** Routes of which every fifth has a regex with alternatives in groups, each another one: all have to be proved safe from backtracking. */
import { api, cluster, env, gateway, route } from "portcullis";

const eu = cluster("eu", { ingress: env("ORIGIN") });

export default gateway({}, [
  api(
    "prefixes",
    {},
    [...Array(800).keys()].map((i) => route(`p${i}`, { path: `/p${i}/*` }, { to: eu })),
  ),
  api("regexes", {}, [
    ...[...Array(200).keys()].map((i) =>
      route(`r${i}`, { path: new RegExp(`\\/s${i}\\/[a-z]+\\/(?:x|y)`) }, { to: eu }),
    ),
  ]),
]);
