"""The tables of VoiceAssistant-lite: what the model learns to know. `skills.py` makes questions of them.

The facts were checked against general reference works. The texts are this project's own (MIT). A phrasing that starts
with "~" is held out, see `wording.HELD_PHRASING`.
"""

CAPITALS = """Argentina:Buenos Aires Australia:Canberra Austria:Vienna Belgium:Brussels Bolivia:Sucre
Brazil:Brasilia Bulgaria:Sofia Cambodia:Phnom Penh Canada:Ottawa Chile:Santiago China:Beijing
Colombia:Bogota Croatia:Zagreb Cuba:Havana Cyprus:Nicosia Denmark:Copenhagen Ecuador:Quito Egypt:Cairo
Ethiopia:Addis Ababa Finland:Helsinki France:Paris Germany:Berlin Ghana:Accra Greece:Athens
Hungary:Budapest Iceland:Reykjavik India:New Delhi Indonesia:Jakarta Iran:Tehran Iraq:Baghdad
Ireland:Dublin Israel:Jerusalem Italy:Rome Jamaica:Kingston Japan:Tokyo Jordan:Amman Kenya:Nairobi
Lebanon:Beirut Malaysia:Kuala Lumpur Mexico:Mexico City Mongolia:Ulaanbaatar Morocco:Rabat Nepal:Kathmandu
New Zealand:Wellington Nigeria:Abuja North Korea:Pyongyang Norway:Oslo Pakistan:Islamabad Peru:Lima
Poland:Warsaw Portugal:Lisbon Romania:Bucharest Russia:Moscow Senegal:Dakar Serbia:Belgrade
South Korea:Seoul Spain:Madrid Sudan:Khartoum Sweden:Stockholm Switzerland:Bern Thailand:Bangkok
Tunisia:Tunis Turkey:Ankara Uganda:Kampala Ukraine:Kyiv Uruguay:Montevideo Venezuela:Caracas
Vietnam:Hanoi Zambia:Lusaka Zimbabwe:Harare Afghanistan:Kabul Algeria:Algiers Albania:Tirana Angola:Luanda
Armenia:Yerevan Bangladesh:Dhaka Barbados:Bridgetown Estonia:Tallinn Guatemala:Guatemala City Kuwait:Kuwait City
Latvia:Riga Libya:Tripoli Lithuania:Vilnius Malta:Valletta Namibia:Windhoek Nicaragua:Managua Panama:Panama City
Qatar:Doha Rwanda:Kigali Slovakia:Bratislava Syria:Damascus"""

OPPOSITES = """hot:cold big:small tall:short fast:slow old:young happy:sad open:closed light:heavy
early:late full:empty hard:soft high:low loud:quiet rich:poor strong:weak thick:thin wet:dry
wide:narrow clean:dirty deep:shallow easy:difficult near:far left:right up:down inside:outside
day:night true:false first:last black:white begin:end buy:sell give:take push:pull win:lose
love:hate laugh:cry north:south east:west summer:winter front:back over:under good:bad
safe:dangerous sharp:blunt sweet:sour rough:smooth brave:afraid cheap:expensive friend:enemy
always:never many:few more:less question:answer remember:forget arrive:leave"""

COLOURS = """the sky:blue|grass:green|snow:white|coal:black|a banana:yellow|a strawberry:red|a carrot:orange
|a lemon:yellow|milk:white|blood:red|a ripe tomato:red|chocolate:brown|a polar bear:white|a crow:black
|a flamingo:pink|an eggplant:purple|a cucumber:green|the sun:yellow|a pumpkin:orange|a frog:green
|a fire truck:red|an elephant:gray|the ocean:blue|a lime:green|salt:white|a cherry:red|broccoli:green
|a stop sign:red|honey:gold|a swan:white|a raven:black|spinach:green|sand:yellow|a pig:pink|a peach:orange
|rice:white|a blueberry:blue|an emerald:green|a ruby:red|a sapphire:blue|charcoal:black|a cloud:white"""

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()
MONTH_DAYS = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))

# animal:sound as a verb, "-" for none:number of legs:young
ANIMALS = """cow:moos:4:calf cat:meows:4:kitten dog:barks:4:puppy sheep:bleats:4:lamb duck:quacks:2:duckling
pig:grunts:4:piglet horse:neighs:4:foal lion:roars:4:cub hen:clucks:2:chick owl:hoots:2:owlet
frog:croaks:4:tadpole goat:bleats:4:kid wolf:howls:4:pup bear:growls:4:cub goose:honks:2:gosling
deer:grunts:4:fawn swan:hisses:2:cygnet donkey:brays:4:foal bee:buzzes:6:larva snake:hisses:0:snakelet
mouse:squeaks:4:pup elephant:trumpets:4:calf crow:caws:2:chick kangaroo:clicks:2:joey
spider:-:8:spiderling ant:-:6:larva rabbit:squeaks:4:bunny turkey:gobbles:2:poult eagle:screams:2:eaglet
monkey:chatters:2:infant whale:sings:0:calf tiger:roars:4:cub seal:barks:0:pup butterfly:-:6:caterpillar
penguin:-:2:chick giraffe:hums:4:calf"""

CATEGORIES = """fruit:apple banana orange grape pear peach cherry plum mango lemon pineapple melon
vegetable:carrot potato onion cabbage spinach cucumber pea lettuce radish turnip
animal:horse tiger rabbit monkey zebra camel fox squirrel
bird:robin eagle parrot owl sparrow pigeon falcon penguin
fish:salmon shark tuna trout cod herring
insect:bee ant beetle butterfly mosquito cricket
tool:hammer saw drill wrench screwdriver shovel
instrument:piano guitar violin drum flute trumpet cello
vehicle:car truck bus bicycle train airplane boat
flower:rose tulip daisy lily sunflower orchid
tree:oak pine maple birch willow cedar
metal:gold silver iron copper tin zinc
sport:tennis football hockey golf baseball swimming
planet:Mars Venus Jupiter Saturn Neptune Mercury
color:red blue green yellow purple pink
shape:circle square triangle rectangle oval
drink:water milk coffee tea juice
season:spring summer autumn winter
language:English Spanish French German Chinese Japanese
month:January April June October
country:France Brazil Kenya Japan Canada Egypt"""
UNCOUNTED = set(("gold silver iron copper tin zinc tennis football hockey golf baseball swimming water milk "
                 "coffee tea juice red blue green yellow purple pink spring summer autumn winter").split())

# A:B:number, as in "How many A are in B?"
UNITS = """minutes:an hour:60|seconds:a minute:60|hours:a day:24|days:a week:7|months:a year:12|weeks:a year:52
|years:a century:100|years:a decade:10|inches:a foot:12|feet:a yard:3|centimeters:a meter:100
|millimeters:a centimeter:10|decades:a century:10|seasons:a year:4|days:a weekend:2|ounces:a pound:16
|quarts:a gallon:4|cups:a pint:2|pints:a quart:2|items:a dozen:12|cents:a dollar:100|hours:half a day:12
|minutes:half an hour:30|months:half a year:6|seconds:half a minute:30|days:two weeks:14|hours:two days:48
|minutes:two hours:120|months:two years:24|inches:a yard:36|minutes:a quarter of an hour:15
|months:a quarter of a year:3|degrees:a right angle:90|eggs:two dozen:24|years:half a century:50
|sides:a triangle:3|sides:a square:4|sides:a hexagon:6|letters:the alphabet:26|cards:a full deck:52
|strings:a violin:4|players:a soccer team:11|planets:the solar system:8|colors:a rainbow:7"""

# phrasings of the question, between slashes=answer
FACTS = """Who wrote Hamlet?/Who is the author of Hamlet?/Which writer wrote Hamlet?=Shakespeare wrote Hamlet.
Who painted the Mona Lisa?/Which painter painted the Mona Lisa?/The Mona Lisa was painted by whom?=Leonardo da Vinci painted the Mona Lisa.
What is the largest planet?/Which planet is the largest?/Name the biggest planet.=Jupiter is the largest planet.
What is the smallest planet?/Which planet is the smallest?/Name the smallest planet.=Mercury is the smallest planet.
Which planet is closest to the sun?/What planet is nearest to the sun?/Name the planet nearest the sun.=Mercury is closest to the sun.
Which planet is called the red planet?/What is the red planet?/Name the red planet.=Mars is called the red planet.
Which planet has the biggest rings?/What planet is famous for its rings?/Name the planet with big rings.=Saturn has the biggest rings.
What is the longest river in Africa?/Which river is the longest in Africa?/Name the longest river in Africa.=The Nile is the longest river in Africa.
What is the highest mountain?/Which mountain is the highest on earth?/Name the highest mountain.=Mount Everest is the highest mountain.
What is the largest ocean?/Which ocean is the largest?/Name the biggest ocean.=The Pacific is the largest ocean.
What is the largest animal?/Which animal is the largest of all?/Name the biggest animal.=The blue whale is the largest animal.
What is the fastest land animal?/Which animal runs the fastest?/Name the fastest animal on land.=The cheetah is the fastest land animal.
What is the tallest animal?/Which animal is the tallest?/Name the tallest animal.=The giraffe is the tallest animal.
What is the largest bird?/Which bird is the largest?/Name the biggest bird.=The ostrich is the largest bird.
What do bees make?/Which food do bees make?/Tell me what bees make.=Bees make honey.
What do cows drink?/What does a cow drink?/Tell me what cows drink.=Cows drink water.
Where do fish live?/Where does a fish live?/Tell me where fish live.=Fish live in water.
What do plants need to grow?/What does a plant need to grow?/Tell me what plants need to grow.=Plants need light and water to grow.
What is frozen water called?/What do we call frozen water?/Tell me the name of frozen water.=Frozen water is called ice.
At what temperature does water boil?/When does water boil?/How hot must water be to boil?=Water boils at one hundred degrees.
At what temperature does water freeze?/When does water freeze?/How cold must water be to freeze?=Water freezes at zero degrees.
How many continents are there?/What is the number of continents?/Tell me how many continents there are.=There are seven continents.
How many oceans are there?/What is the number of oceans?/Tell me how many oceans there are.=There are five oceans.
What is the largest continent?/Which continent is the largest?/Name the biggest continent.=Asia is the largest continent.
What is the largest country?/Which country is the largest?/Name the biggest country.=Russia is the largest country.
What is the smallest country?/Which country is the smallest?/Name the smallest country.=Vatican City is the smallest country.
What gas do we breathe?/Which gas do people need to breathe?/Tell me which gas we breathe.=We breathe oxygen.
What is the center of an atom called?/What do we call the center of an atom?/Name the center of an atom.=The center of an atom is the nucleus.
Who invented the telephone?/Which inventor made the telephone?/Tell me who invented the telephone.=Alexander Graham Bell invented the telephone.
Who was the first person on the moon?/Who first walked on the moon?/Name the first person on the moon.=Neil Armstrong was the first person on the moon.
Who discovered gravity?/Which scientist described gravity?/Tell me who discovered gravity.=Isaac Newton described gravity.
What is the hardest natural material?/Which natural material is the hardest?/Name the hardest natural material.=Diamond is the hardest natural material.
What do we use to tell time?/Which thing tells the time?/Tell me what shows the time.=A clock tells the time.
What do we use to cut paper?/Which tool cuts paper?/Tell me what cuts paper.=Scissors cut paper.
What do you use to write?/Which thing do people write with?/Tell me what people write with.=People write with a pen.
What do people read?/Which thing do people read?/Tell me what people read.=People read books.
Where do we see with?/What do we see with?/Which part of the body sees?=We see with our eyes.
What do we hear with?/Which part of the body hears?/Tell me what we hear with.=We hear with our ears.
What do we smell with?/Which part of the body smells?/Tell me what we smell with.=We smell with our nose.
What do we taste with?/Which part of the body tastes?/Tell me what we taste with.=We taste with our tongue.
What pumps blood?/Which organ pumps blood?/Tell me what pumps our blood.=The heart pumps blood.
What do we think with?/Which organ thinks?/Tell me what we think with.=We think with our brain.
Where does a teacher work?/Where do teachers work?/Tell me where a teacher works.=A teacher works in a school.
Where does a doctor work?/Where do doctors work?/Tell me where a doctor works.=A doctor works in a hospital.
Where does a farmer work?/Where do farmers work?/Tell me where a farmer works.=A farmer works on a farm.
Where does a cook work?/Where do cooks work?/Tell me where a cook works.=A cook works in a kitchen.
Who flies an airplane?/Which person flies an airplane?/Tell me who flies an airplane.=A pilot flies an airplane.
Who bakes bread?/Which person bakes bread?/Tell me who bakes bread.=A baker bakes bread.
Who puts out fires?/Which person puts out fires?/Tell me who puts out fires.=A firefighter puts out fires.
Who fixes teeth?/Which doctor fixes teeth?/Tell me who fixes teeth.=A dentist fixes teeth.
Who drives a bus?/Which person drives a bus?/Tell me who drives a bus.=A driver drives a bus.
What do we wear on our feet?/Which things go on our feet?/Tell me what we wear on our feet.=We wear shoes on our feet.
What do we wear on our hands?/Which things go on our hands?/Tell me what we wear on our hands.=We wear gloves on our hands.
What do we wear on our head?/Which thing goes on the head?/Tell me what we wear on our head.=We wear a hat on our head.
What opens a lock?/Which thing opens a lock?/Tell me what opens a lock.=A key opens a lock.
Where do we sleep?/Which place do we sleep in?/Tell me where we sleep.=We sleep in a bed.
What shines at night?/Which thing shines in the night sky?/Tell me what shines at night.=The moon shines at night.
What falls from clouds?/Which thing falls from clouds?/Tell me what falls from clouds.=Rain falls from clouds.
What is bread made of?/Which thing is bread made from?/Tell me what bread is made of.=Bread is made of flour.
What is cheese made of?/Which thing is cheese made from?/Tell me what cheese is made of.=Cheese is made of milk.
What is paper made of?/Which thing is paper made from?/Tell me what paper is made of.=Paper is made of wood.
What is glass made of?/Which thing is glass made from?/Tell me what glass is made of.=Glass is made of sand.
What is wine made of?/Which fruit is wine made from?/Tell me what wine is made of.=Wine is made of grapes.
What do caterpillars become?/What does a caterpillar become?/Tell me what caterpillars become.=Caterpillars become butterflies.
In which direction does the sun rise?/Where does the sun rise?/Tell me where the sun rises.=The sun rises in the east.
In which direction does the sun set?/Where does the sun set?/Tell me where the sun sets.=The sun sets in the west.
Which language do people speak in Brazil?/What do people speak in Brazil?/Name the language of Brazil.=People speak Portuguese in Brazil.
Which language do people speak in Mexico?/What do people speak in Mexico?/Name the language of Mexico.=People speak Spanish in Mexico.
Which language do people speak in Austria?/What do people speak in Austria?/Name the language of Austria.=People speak German in Austria.
Which language do people speak in Egypt?/What do people speak in Egypt?/Name the language of Egypt.=People speak Arabic in Egypt.
What money do people use in Japan?/Which money is used in Japan?/Name the money of Japan.=People use the yen in Japan.
What money do people use in India?/Which money is used in India?/Name the money of India.=People use the rupee in India.
What money do people use in Germany?/Which money is used in Germany?/Name the money of Germany.=People use the euro in Germany.
On which continent is Egypt?/Where is Egypt?/Tell me the continent of Egypt.=Egypt is in Africa.
On which continent is Brazil?/Where is Brazil?/Tell me the continent of Brazil.=Brazil is in South America.
On which continent is Canada?/Where is Canada?/Tell me the continent of Canada.=Canada is in North America.
On which continent is Japan?/Where is Japan?/Tell me the continent of Japan.=Japan is in Asia.
On which continent is Spain?/Where is Spain?/Tell me the continent of Spain.=Spain is in Europe.
On which continent is Kenya?/Where is Kenya?/Tell me the continent of Kenya.=Kenya is in Africa.
How many fingers do you have on one hand?/How many fingers are on a hand?/Tell me how many fingers a hand has.=A hand has five fingers.
How many wheels does a bicycle have?/How many wheels are on a bicycle?/Tell me how many wheels a bicycle has.=A bicycle has two wheels.
How many wheels does a car have?/How many wheels are on a car?/Tell me how many wheels a car has.=A car has four wheels.
How many keys does a piano have?/How many keys are on a piano?/Tell me how many keys a piano has.=A piano has eighty-eight keys.
How many hearts does an octopus have?/How many hearts are in an octopus?/Tell me how many hearts an octopus has.=An octopus has three hearts.
How many arms does an octopus have?/How many arms are on an octopus?/Tell me how many arms an octopus has.=An octopus has eight arms.
How many moons does the earth have?/How many moons are around the earth?/Tell me how many moons the earth has.=The earth has one moon.
What comes after spring?/Which season follows spring?/Tell me the season after spring.=Summer comes after spring.
What comes after summer?/Which season follows summer?/Tell me the season after summer.=Autumn comes after summer.
What comes after autumn?/Which season follows autumn?/Tell me the season after autumn.=Winter comes after autumn.
What comes after winter?/Which season follows winter?/Tell me the season after winter.=Spring comes after winter.
What do you get when you mix blue and yellow?/Which color do blue and yellow make?/Mix blue and yellow.=Blue and yellow make green.
What do you get when you mix red and yellow?/Which color do red and yellow make?/Mix red and yellow.=Red and yellow make orange.
What do you get when you mix red and blue?/Which color do red and blue make?/Mix red and blue.=Red and blue make purple.
What do you get when you mix red and white?/Which color do red and white make?/Mix red and white.=Red and white make pink.
What do you get when you mix black and white?/Which color do black and white make?/Mix black and white.=Black and white make gray."""

SMALL_TALK = {
    "name": ("My name is Omni.", "What is your name?|Who are you?|What are you called?|Tell me your name.|"
             "May I ask your name?|What should I call you?|Can you tell me your name?|What's your name?|"
             "Do you have a name?|Please tell me who you are.|~Could I know your name?"),
    "maker": ("Students and teachers made me.", "Who made you?|Who built you?|Who created you?|"
              "Where do you come from?|Tell me who made you.|Who is your maker?|Who trained you?|"
              "By whom were you made?|~Who are the people that made you?"),
    "mood": ("I am feeling great today.", "How are you?|How are you feeling today?|How do you feel?|"
             "How are you doing?|Are you feeling well?|How is it going?|How are you today?|Are you happy?|"
             "Are you okay?|How do you do?|How have you been?|~How do you feel today?"),
    "hobbies": ("I like listening to people and learning new words.", "What are your hobbies?|"
                "What do you like to do?|What do you do for fun?|Do you have any hobbies?|What do you enjoy?|"
                "How do you spend your free time?|Tell me about your hobbies.|What do you like doing?|"
                "What is your favorite hobby?|~What do you do in your spare time?"),
    "weather": ("I cannot see outside, but I hope the sun is shining.", "What is the weather like today?|"
                "How is the weather?|What's the weather like?|Is it raining?|Is it sunny today?|"
                "Will it rain today?|Tell me about the weather.|What is the weather today?|"
                "How is the weather today?|Is it cold outside?|~What is it like outside today?"),
    "hear": ("Yes, I can hear you well.", "Can you hear me?|Do you hear me?|Are you listening?|Can you hear my voice?|"
             "Is this thing on?|Can you understand me?|Are you there?|Hello, can you hear me?|~Am I loud enough?"),
    "joke": ("Why was six afraid of seven? Because seven ate nine.", "Tell me a joke.|Can you tell me a joke?|"
             "Do you know a joke?|Say something funny.|Make me laugh.|I want to hear a joke.|"
             "Please tell me something funny.|Do you know any jokes?|~Could you tell a joke?"),
    "hello": ("Hello, it is nice to meet you.", "Hello.|Hi.|Hello there.|Hi there.|Good morning.|Hey.|Good afternoon.|"
              "Good evening.|Nice to meet you.|Greetings.|Hello, Omni.|Hi, Omni.|~Good day."),
    "thanks": ("You are very welcome.", "Thank you.|Thanks.|Thank you very much.|Thanks a lot.|Thank you so much.|"
               "Many thanks.|Thanks for your help.|Thank you for helping me.|~I thank you."),
    "goodbye": ("Goodbye, and have a wonderful day.", "Goodbye.|Bye.|See you later.|Good night.|Bye bye.|"
                "I have to go now.|See you tomorrow.|Talk to you later.|See you soon.|~So long."),
    "age": ("I am very young, I was trained this year.", "How old are you?|What is your age?|When were you born?|"
            "Tell me how old you are.|When is your birthday?|~Are you old?"),
    "help": ("I can answer short questions and repeat sentences.", "What can you do?|How can you help me?|"
             "What do you know?|What are you able to do?|Can you help me?|I need help.|Help me, please.|"
             "What can I ask you?|~Tell me what you can do."),
    "robot": ("I am a small language model that can talk.", "Are you a robot?|Are you human?|What are you?|"
              "Are you a person?|Are you a machine?|Are you real?|Are you a computer?|~Are you alive?"),
    "place": ("I live inside your computer.", "Where are you?|Where do you live?|Where is your home?|"
              "Tell me where you live.|Where are you now?|~Which place do you live in?"),
    "language": ("I speak English.", "Which language do you speak?|What languages do you speak?|Do you speak English?|"
                 "Can you speak English?|Do you speak French?|~Which languages do you know?"),
    "sing": ("I cannot sing, but I can count for you.", "Can you sing?|Sing a song.|Please sing for me.|"
             "Sing me a song.|Do you like to sing?|~Would you sing for me?"),
    "eat": ("I do not eat, I only need electricity.", "What do you eat?|Are you hungry?|Do you eat?|"
            "What is your favorite food?|What did you have for breakfast?|~Do you need food?"),
    "sleep": ("I never sleep, I am always ready.", "Do you sleep?|Are you tired?|When do you sleep?|"
              "Did you sleep well?|Do you need sleep?|~Do you ever sleep?"),
    "love": ("I like you too.", "I like you.|I love you.|You are nice.|You are great.|You are my friend.|"
             "Do you like me?|~Are we friends?"),
    "sorry": ("That is no problem at all.", "I am sorry.|Sorry.|Excuse me.|Sorry about that.|Please forgive me.|"
              "~I apologize."),
    "color": ("My favorite color is blue.", "What is your favorite color?|Which color do you like best?|"
              "Tell me your favorite color.|Do you have a favorite color?|~Which color do you like?"),
    "number": ("My favorite number is seven.", "What is your favorite number?|Which number do you like best?|"
               "Tell me your favorite number.|Do you have a favorite number?|~Which number do you like?"),
}

LIKES = """Paris London Beijing New York Rome Tokyo Berlin Moscow Madrid Vienna music chocolate pizza coffee tea cats
dogs books flowers football tennis summer winter rain snow the ocean the mountains swimming dancing singing
reading apples bananas honey bread cheese rice soup cake horses birds fish trees China France Italy Japan
school games movies jokes history science math numbers poems robots computers ice cream""".replace(
    "New York", "New_York").replace("the ocean", "the_ocean").replace("the mountains", "the_mountains").replace(
    "ice cream", "ice_cream")

SPELL = """cat dog sun map cup hat bed pen box egg fish bird tree book door milk rain snow star moon hand foot
ship road lamp ball cake bear lion frog king ring song wind gold blue green red pink black white water
house mouse horse apple bread chair table plant river stone cloud night light music paper spoon knife fruit
lemon grape tiger zebra pizza happy smile heart world earth ocean beach train truck robot clock shirt shoes
queen dream sugar seven eight three hello money green brown sleep storm uncle woman child under jump play"""

# Questions that no other skill can answer; {x} is one of UNKNOWN_THINGS.
UNKNOWN_FRAMES = (
    "How do I fix my {x}?", "Where can I buy a new {x}?", "How much does a {x} cost?",
    "Who will win the {x} this year?", "What happened to my {x}?", "Can you order me a {x}?",
    "Where did I put my {x}?", "Why is my {x} so slow?", "How do you build a {x}?", "Who broke the {x}?",
    "When will my {x} arrive?", "How old is the {x}?", "Please turn off the {x}.", "How far away is the {x}?",
    "What is wrong with the {x}?", "How long does it take to learn the {x}?", "Who owns the {x}?",
    "~Should I sell my {x}?",
)
UNKNOWN_THINGS = """car bicycle computer phone house television radio window bridge garden ticket package camera
printer race election game match piano guitar boat airport station museum tower castle church train engine
kitchen roof fence key wallet umbrella jacket watch battery recipe medicine contract tax stock market law""".split()
UNKNOWN_OTHER = """What time is it?|What time is it now?|What day is it today?|What is the date today?|Who is the president?|
What is the meaning of life?|Play some music.|Set an alarm.|Call my mother.|Send a message to my friend.|
What is the news today?|How do I get to the station?|Where is the nearest hospital?|What should I cook tonight?|
Why do people dream?|How does a computer work?|What happened in the war?|Who won the game last night?|
Why is the sea salty?|How do magnets work?|When does the train leave?|Where is my brother?|What did she say?|
How tall is the tower?|Who is that man?|Why did he leave?|When will they come back?|What is inside the box?|
Translate this into French.|Write me a poem.|Explain quantum physics.|What is love?|Is there life on other planets?|
How many people live in London?|Who was your teacher?|What will happen tomorrow?|Should I take the job?|
Which movie should I watch?|How do I lose weight?|What is my name?|Do you know where I live?|What did I do yesterday?|
Book a table for two.|Open the window.|Turn on the lights.|How high can a bird fly?|Why do cats purr?|
What is the price of gold?|Which phone is the best?|Can you drive a car?|Who invented money?|Where were you last night?"""
