/** What `request.cf` tells, all of it as text. */
export interface Location {
  /** Cloudflare's data centre, by its airport's code. */
  readonly colo?: string | undefined;
  /** The client's, as are latitude and longitude. */
  readonly continent?: string | undefined;
  readonly latitude?: string | undefined;
  readonly longitude?: string | undefined;
}

export type Degrees = readonly [latitude: number, longitude: number];

/** Cloudflare's location hints, each by a city near its middle. */
const REGIONS: ReadonlyMap<string | undefined, Degrees> = new Map([
  ["wnam", [37.4, -121.9]], // San Jose
  ["enam", [39.0, -77.5]], // Ashburn
  ["sam", [-23.5, -46.6]], // São Paulo
  ["weur", [50.1, 8.7]], // Frankfurt
  ["eeur", [52.2, 21.0]], // Warsaw
  ["apac", [1.4, 103.8]], // Singapore
  ["oc", [-33.9, 151.2]], // Sydney
  ["afr", [-1.3, 36.8]], // Nairobi
  ["me", [25.3, 55.3]], // Dubai
]);

// Those of Cloudflare's data centres that see most of the traffic; for the others the client's coordinates are near enough.
const COLOS: ReadonlyMap<string | undefined, string> = new Map(
  Object.entries({
    wnam: "SJC LAX SFO SEA PDX SAN SMF LAS PHX SLC DEN ABQ YVR YYC",
    enam: "IAD EWR BOS PHL PIT BUF RIC CLT RDU ATL JAX TPA MIA ORD DTW CLE CMH IND STL MCI MSP OMA MEM BNA DFW IAH AUS SAT OKC YYZ YUL YOW YWG MEX QRO GDL",
    sam: "GRU GIG CNF CWB POA FOR REC SSA BSB VCP EZE COR SCL LIM BOG MDE UIO ASU",
    weur: "FRA AMS LHR MAN DUB CDG MRS LYS BRU LUX DUS HAM TXL MUC STR ZRH GVA VIE PRG MXP FCO PMO MAD BCN LIS CPH OSL ARN GOT",
    eeur: "WAW WRO BUD BTS OTP SOF BEG ZAG ATH SKG IST HEL TLL RIX VNO KBP KIV MSQ DME LED",
    apac: "SIN HKG NRT KIX FUK OKA ICN TPE KHH MNL CEB KUL JHB CGK BKK SGN HAN PNH BOM DEL MAA BLR HYD CCU AMD DAC CMB KHI LHE ISB KTM",
    oc: "SYD MEL BNE PER ADL CBR HBA AKL CHC NOU PPT SUV GUM",
    afr: "JNB CPT DUR NBO MBA DAR LOS ACC LAD MPM HRE KGL DKR MRU TNR",
    me: "DXB DOH BAH MCT KWI RUH JED DMM AMM BEY BGW TLV HFA",
  }).flatMap(([region, codes]) => codes.split(" ").map((code) => [code, region] as const)),
);

const CONTINENTS: ReadonlyMap<string | undefined, string> = new Map([
  ["NA", "enam"],
  ["SA", "sam"],
  ["EU", "weur"],
  ["AS", "apac"],
  ["OC", "oc"],
  ["AF", "afr"],
]);

/** The places of `regions` in order of distance, equally near ones in their own order; a region that is not known comes last. */
export function byDistance(regions: readonly (string | undefined)[], from: Degrees): readonly number[] {
  const distances = regions.map((region) => {
    const to = REGIONS.get(region);
    return to ? distance(from, to) : Number.POSITIVE_INFINITY;
  });
  return regions.map((_, place) => place).sort((a, b) => compare(distances[a] as number, distances[b] as number));
}

const compare = (a: number, b: number) => (a < b ? -1 : a > b ? 1 : 0);

/**
 * Where a request is, as nearly as is known; undefined when nothing is. The data centre counts before the client's coordinates: it
 * is from there that the request goes on. The same data centre gives the same value, also by reference.
 */
export function whereabouts({ colo, continent, latitude, longitude }: Location): Degrees | undefined {
  const region = COLOS.get(colo);
  if (region) return REGIONS.get(region);
  const coordinates = [Number.parseFloat(latitude ?? ""), Number.parseFloat(longitude ?? "")] as const;
  if (coordinates.every(Number.isFinite)) return coordinates;
  return REGIONS.get(CONTINENTS.get(continent));
}

/** Along the great circle, in radians (haversine). */
function distance([latitude1, longitude1]: Degrees, [latitude2, longitude2]: Degrees): number {
  const radians = Math.PI / 180;
  const half = (degrees: number) => Math.sin((degrees * radians) / 2) ** 2;
  const between = Math.cos(latitude1 * radians) * Math.cos(latitude2 * radians) * half(longitude2 - longitude1);
  return 2 * Math.asin(Math.min(1, Math.sqrt(half(latitude2 - latitude1) + between)));
}
