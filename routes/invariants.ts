import { anonymous, backend, every, filter, ipFilter, no, route, scopes } from "portcullis";

/** What stays true of this gateway, whoever adds a route next. `npm run check` proves it over the whole table. */
export default [
  every(route)
    .under("/admin")
    .requires(scopes("admin"), ipFilter({ allow: ["10.20.0.0/16", "2001:db8:20::/48"] })),
  every(route).of("orders", "partners", "admin").denies(anonymous),
  // Who changes something is known, wherever the route stands.
  every(route).reaches().taking("POST", "PUT", "PATCH", "DELETE").denies(anonymous),
  no(route).reaches(backend("orders")).without(filter, scopes),
];
